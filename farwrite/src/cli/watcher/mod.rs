//! `farwrite watcher`: one watcher for all apps of a region.

mod flags;
mod run;

pub(crate) use flags::{command, start};
