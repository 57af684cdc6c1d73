//! Who wants to know how far a server has come, as the poll loop sees it.

use std::future::Future;

use farwrite_schemas::Epoch;
use tokio::time::Instant;

use super::server::{HistoryAnswer, ServerReport};
use crate::answer::GoneReason;

/// That somebody waits for something that was not seen yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Demand {
    /// When the youngest caller came.
    pub(crate) youngest: Instant,
    /// Somebody wants an answer now, however young it is.
    pub(crate) at_once: bool,
}

/// Those who want to know how far the server has come: an app's board, or a region's apps.
pub(crate) trait Audience: Send + Sync {
    /// Whether anybody waits.
    fn demand(&self) -> Option<Demand>;
    /// Resolves when the demand may have changed; a change while nobody listens is kept.
    fn demanded(&self) -> impl Future<Output = ()> + Send;
    /// A question is about to be asked.
    fn asking(&self);
    /// The server answered.
    fn saw(&self, report: ServerReport) -> impl Future<Output = ()> + Send;
    /// Epochs whose branch somebody needs to know.
    fn epochs(&self) -> Vec<Epoch>;
    /// What the server's history says of these epochs, asked after the last answer.
    fn told(&self, answer: HistoryAnswer) -> impl Future<Output = ()> + Send;
    /// The server could not be asked: what had been seen on its connection no longer counts.
    fn lost(&self, reason: GoneReason) -> impl Future<Output = ()> + Send;
}
