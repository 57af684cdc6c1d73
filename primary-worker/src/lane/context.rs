//! What all lanes of a takeover share: data, and nothing else.

use std::sync::Arc;

use farwrite_internal::Health;

use crate::{
    apply::{handler::Handlers, judge::Refreshed},
    config::Config,
    keep::{confirm::Confirming, heartbeat::Pulse},
    life::{may_answer::MayAnswer, takeover::Takeover},
    memory::Memory,
    primary::PrimarySessions,
};

use super::turns::SuspectTurns;

/// What all lanes of a takeover share.
#[derive(Clone)]
pub(crate) struct LaneContext {
    pub(crate) config: Arc<Config>,
    pub(crate) takeover: Arc<Takeover>,
    pub(crate) handlers: Arc<Handlers>,
    pub(crate) client: async_nats::Client,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) refreshed: Refreshed,
    pub(crate) health: Health,
    /// Where outcomes are left that must wait for required standbys, if there are any.
    pub(crate) confirm: Option<Confirming>,
    pub(crate) may_answer: MayAnswer,
    pub(crate) turns: SuspectTurns,
    pub(crate) memory: Memory,
    pub(crate) sessions: PrimarySessions,
}
