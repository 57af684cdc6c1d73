//! What every test needs: the shared stack, a database and a stream, the worker program,
//! publishing, and the model that the database is compared with.

mod asking;
mod case;
mod copied;
mod message;
mod model;
mod operating;
mod ran;
mod servers;

pub(crate) use case::Case;
pub(crate) use copied::CopiedStore;
pub(crate) use message::{Append, Message};
pub(crate) use operating::{ALL_WAIT, DEAD, NOBODY_WAITS, PARKED, WAITS_FOR_ITS_LANE};
pub(crate) use servers::DEADLINE;
