//! What the programs share on their command lines: settings and the log. Only with the feature
//! `program`, which libraries do not enable.

pub mod log;
pub mod settings;
