//! What the programs share: settings, the log, and what they tell over HTTP. Only with the feature
//! `program`, which libraries do not enable.

pub mod http;
pub mod log;
pub mod settings;
