//! What tests of an operator's acts share.

use anyhow::Result;

use super::case::Case;

/// Commands that nobody knows are dead-lettered at once.
pub(crate) const NOBODY_WAITS: [&str; 2] = ["--unknown-keep-s", "0"];
/// Commands that nobody knows stay parked.
pub(crate) const ALL_WAIT: [&str; 2] = ["--unknown-keep-s", "3600"];
pub(crate) const DEAD: &str = "SELECT count(*) FROM farwrite.dead_letters";
pub(crate) const PARKED: &str = "SELECT count(*) FROM farwrite.parked";
/// Batches that wait for an operator's act on their lanes.
pub(crate) const WAITS_FOR_ITS_LANE: &str = "SELECT count(*) FROM pg_stat_activity
    WHERE wait_event_type = 'Lock' AND datname = current_database() AND query LIKE '%farwrite.apply_plain(%'";

impl Case {
    /// Waits until every lane has passed the stream's end. Commands may be parked.
    pub(crate) async fn read(&self) -> Result<()> {
        let mut stream = self.context.get_stream(format!("farwrite-{}", self.name)).await?;
        let last = stream.info().await?.state.last_sequence.cast_signed();
        self.until("every lane has passed the stream's end", async || {
            Ok(self.count("SELECT coalesce(min(sequence), -1) FROM farwrite.lanes").await? >= last)
        })
        .await
    }

    pub(crate) async fn until_count(&self, sql: &'static str, wanted: i64) -> Result<()> {
        self.until(&format!("{sql}: {wanted}"), async || Ok(self.count(sql).await? == wanted)).await
    }

    /// What happened to one key.
    pub(crate) async fn effects_of(&self, key: &str) -> Result<Vec<i32>> {
        Ok(self.effects().await?.remove(key).unwrap_or_default())
    }
}
