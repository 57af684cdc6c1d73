//! Applying commands: from what a lane took to a committed transaction.

pub(crate) mod atomic;
pub(crate) mod attempt;
pub(crate) mod by_name;
pub(crate) mod columns;
pub(crate) mod functions;
pub(crate) mod handler;
pub(crate) mod json_schema;
pub(crate) mod judge;
pub(crate) mod one_statement;
pub(crate) mod park;
pub(crate) mod sort;
pub(crate) mod staged;
pub(crate) mod work;
