//! What command lines share.

pub mod http;
pub mod log;
pub mod settings;
