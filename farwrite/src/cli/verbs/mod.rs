//! What an app does, for scripts and for a look by hand: one call, one line of JSON on standard
//! output, and an exit status that a script can act on.

mod answer;
mod ended;
mod flags;
mod line;
mod request;
mod run;

pub(crate) use flags::{NAMES, commands};
pub(crate) use run::start;
