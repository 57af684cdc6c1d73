//! The members of an atomic batch, read and resolved: data, and nothing else.

use std::sync::Arc;

use farwrite_schemas::{CommandId, CommandName, Fingerprint, Rejection};
use serde_json::value::RawValue;

use super::handler::AnyHandler;

/// An atomic batch, read and resolved.
pub(crate) struct Atomic {
    pub(crate) members: Vec<Member>,
}

impl Atomic {
    /// Whether one of its commands runs in the worker itself.
    pub(crate) fn has_handler(&self) -> bool {
        self.members.iter().any(|member| matches!(member.work, MemberWork::Handler(_)))
    }
}

/// One of its commands.
pub(crate) struct Member {
    pub(crate) id: CommandId,
    pub(crate) name: CommandName,
    pub(crate) version: u32,
    pub(crate) body: Box<RawValue>,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) work: MemberWork,
}

/// How a member is applied.
pub(crate) enum MemberWork {
    /// By the function of that number.
    Function(i32),
    /// By a Rust handler.
    Handler(Arc<dyn AnyHandler>),
}

/// What came of an atomic batch's members in one run, in their order.
pub(crate) struct Outputs {
    /// The output of each: its own run's, or the one that the ledger held.
    pub(crate) outputs: Vec<Box<RawValue>>,
    /// Whether this run applied it. What a run applied it records, whatever the ledger says later.
    pub(crate) ran: Vec<bool>,
}

/// Which member of a batch was refused, and why.
#[derive(Clone, Debug)]
pub(crate) struct Refused {
    pub(crate) member: usize,
    pub(crate) rejection: Rejection,
}
