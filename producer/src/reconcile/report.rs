//! What a run of `reconcile` found and did.

use farwrite_schemas::CommandId;

use super::{
    judge::{EndedAs, EntryStanding},
    resend::SentAgain,
};
use crate::{
    journal::Listed, metrics, outbox::publish_error::PublishError, questions::lag::LagError,
};

/// What [`Producer::reconcile`](crate::Producer::reconcile) found and did. Every command that was in
/// the journal is in exactly one of the counts and lists, `overtaken` apart.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct ReconcileReport {
    /// Applied, and forgotten.
    pub applied: usize,
    /// Rejected, and forgotten.
    pub rejected: usize,
    /// Expired, and forgotten.
    pub expired: usize,
    /// Dead-lettered, and forgotten: the operators see them.
    pub dead_lettered: usize,
    /// Parked: the worker applies them when they are due.
    pub parked: usize,
    /// In the stream, as far as is known: the worker has not come that far.
    pub on_their_way: usize,
    /// Too young to be looked at, or being published.
    pub young: usize,
    /// Nobody answered who knows; see [`why_unknown`](Self::why_unknown).
    pub unknown: usize,
    /// Lost, and stored by the stream again now.
    pub sent_again: Vec<CommandId>,
    /// Lost, as the worker sees it, but the stream says that it holds them. True, they will have an
    /// outcome in the next run; if only its memory of ids says so (its duplicate window, minutes),
    /// they are sent again in a later one.
    pub duplicates: Vec<CommandId>,
    /// Lost, and not sent again: why, each with its id. A later run tries again.
    pub unsent: Vec<PublishError>,
    /// Lost, as it seems, and waiting for a command before them of their key: a later run goes on.
    pub held_back: usize,
    /// Lost, and left in the journal because a later command of their key was not
    /// ([`Overtaken::Leave`](crate::Overtaken::Leave)).
    pub left: usize,
    /// Not known, and sent longer ago than [`max_age`](crate::ReconcileOptions::max_age): never
    /// applied, or so long ago that the ledger has forgotten it. Not sent again; they stay until
    /// the app says [`Producer::forget`](crate::Producer::forget).
    pub too_old: Vec<CommandId>,
    /// Of the lost ones, sent again or left, those that a later command of their key has
    /// overtaken, or may have: one that was acknowledged too short a time ago to be judged counts.
    pub overtaken: Vec<CommandId>,
    /// Why commands are unknown, where some could be.
    pub why_unknown: Option<WhyUnknown>,
}

/// Why nobody could tell what became of a command.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WhyUnknown {
    /// The worker did not say how far it has come.
    #[error(transparent)]
    NoLag(LagError),
    /// The worker did not answer a question for an outcome. No further one was asked.
    #[error("the worker stopped answering")]
    Silence,
}

impl ReconcileReport {
    /// Whether somebody should look: commands were lost, or could not be sent again, or are left
    /// to the app. That the worker is away is not among it: it is seen elsewhere.
    #[must_use]
    pub const fn needs_a_look(&self) -> bool {
        !self.sent_again.is_empty()
            || !self.unsent.is_empty()
            || !self.too_old.is_empty()
            || self.left > 0
    }

    /// Counts a command that is not lost.
    pub(super) fn count(&mut self, listed: &Listed, standing: EntryStanding) {
        match standing {
            EntryStanding::Ended(EndedAs::Applied) => self.applied += 1,
            EntryStanding::Ended(EndedAs::Rejected) => self.rejected += 1,
            EntryStanding::Ended(EndedAs::Expired) => self.expired += 1,
            EntryStanding::Ended(EndedAs::DeadLettered) => self.dead_lettered += 1,
            EntryStanding::Parked => self.parked += 1,
            EntryStanding::OnItsWay => self.on_their_way += 1,
            EntryStanding::Young | EntryStanding::UnderWay => self.young += 1,
            EntryStanding::Unknown => self.unknown += 1,
            EntryStanding::TooOld => self.too_old.push(listed.message.id),
            // Counted by what was done with it.
            EntryStanding::Lost => {}
        }
    }

    /// Adds what was done with the lost commands of one key.
    pub(super) fn add(&mut self, of_one_key: SentAgain) {
        let SentAgain { sent, duplicates, overtaken, unsent, held_back, left } = of_one_key;
        self.sent_again.extend(sent);
        self.duplicates.extend(duplicates);
        self.overtaken.extend(overtaken);
        self.unsent.extend(unsent);
        self.held_back += held_back;
        self.left += left;
    }

    /// Counts it in the metrics, and logs what is out of the ordinary.
    pub(super) fn tell(&self) {
        let counts = [
            ("applied", self.applied),
            ("rejected", self.rejected),
            ("expired", self.expired),
            ("dead_lettered", self.dead_lettered),
            ("parked", self.parked),
            ("on_its_way", self.on_their_way),
            ("unknown", self.unknown),
            ("sent_again", self.sent_again.len()),
            ("duplicate", self.duplicates.len()),
            ("unsent", self.unsent.len()),
            ("held_back", self.held_back),
            ("left", self.left),
            ("too_old", self.too_old.len()),
        ];
        for (result, count) in counts {
            metrics::reconciled(result, count);
        }
        if !self.sent_again.is_empty() {
            let (commands, overtaken) = (self.sent_again.len(), self.overtaken.len());
            tracing::warn!(
                commands,
                overtaken,
                "the stream had lost commands: they were sent again"
            );
        }
    }
}
