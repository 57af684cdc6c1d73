//! What a producer has to send: a command made ready, in its key's turn, alone or gathered with
//! others, until the stream has stored it or the time is up.
//!
//! The stream is authoritative: a message is accepted when its acknowledgement says so, and in doubt
//! when none came. What was accepted and lost again is the journal's to find out.

pub(crate) mod accepted;
pub(crate) mod answer;
pub(crate) mod attempt;
pub(crate) mod entered;
pub(crate) mod failure;
pub(crate) mod finish;
pub(crate) mod gather;
pub(crate) mod invalid;
pub(crate) mod message;
pub(crate) mod prepared;
pub(crate) mod progress;
pub(crate) mod publish;
pub(crate) mod publish_error;
pub(crate) mod send;
pub(crate) mod target;
pub(crate) mod terms;
pub(crate) mod turns;
