//! What a staged batch writes into the ledger; writing it closes the batch.

use farwrite_schemas::{CommandId, Fingerprint, Outcome};
use sqlx::{PgConnection, types::Uuid};

use super::{failure::Failure, fence::Fence, item::BatchItem};

/// What of a batch goes into the ledger, as parallel arrays.
#[derive(Default)]
pub(crate) struct LedgerEntries {
    ids: Vec<Uuid>,
    fingerprints: Vec<Uuid>,
    sequences: Vec<i64>,
    at_ns: Vec<i64>,
    attempts: Vec<i32>,
    outcomes: Vec<&'static str>,
    answers: Vec<Option<String>>,
    unconfirmed: Vec<bool>,
}

impl LedgerEntries {
    pub(crate) fn record(&mut self, item: &BatchItem, outcome: &Outcome) {
        if let Some((id, fingerprint)) = item.ledger_entry() {
            self.push(item, id, fingerprint, outcome);
        }
    }

    pub(crate) fn push(
        &mut self,
        item: &BatchItem,
        id: CommandId,
        fingerprint: Fingerprint,
        outcome: &Outcome,
    ) {
        self.ids.push(id.uuid());
        self.fingerprints.push(fingerprint.as_uuid());
        self.sequences.push(item.delivery.sequence.cast_signed());
        self.at_ns.push(item.delivery.at_ns);
        self.attempts.push(item.attempts.max(1).cast_signed());
        self.outcomes.push(outcome.as_str());
        self.answers.push(outcome.ledger_answer());
        self.unconfirmed.push(item.unconfirmed);
    }

    /// What nothing of which is unconfirmed is empty.
    fn unconfirmed(&self) -> &[bool] {
        if self.unconfirmed.contains(&true) { &self.unconfirmed } else { &[] }
    }

    /// Writes it, if the transaction is still the one that was opened.
    pub(crate) async fn close(
        &self,
        tx: &mut PgConnection,
        xid: &str,
        fence: &Fence,
    ) -> Result<(), Failure> {
        sqlx::query("SELECT farwrite.close_batch($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)")
            .bind(xid)
            .bind(fence.stream_id)
            .bind(&self.ids)
            .bind(&self.fingerprints)
            .bind(&self.sequences)
            .bind(&self.at_ns)
            .bind(&self.attempts)
            .bind(&self.outcomes)
            .bind(&self.answers)
            .bind(self.unconfirmed())
            .execute(tx)
            .await?;
        Ok(())
    }
}
