//! Answering questions: outcomes by id, and how far behind the worker is.

pub(crate) mod lag;
pub(crate) mod outcomes;
mod service_error;
