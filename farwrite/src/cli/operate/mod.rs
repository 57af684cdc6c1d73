//! What an operator asks for and does on the database: flags, and what is printed.
//!
//! The questions and acts themselves are the library's: [`Operator`](crate::worker::operate::Operator).

mod acts;
mod flags;
mod operation;
mod print;
mod records;
mod run;
mod status;

pub(crate) use flags::commands;
pub(crate) use run::start;
