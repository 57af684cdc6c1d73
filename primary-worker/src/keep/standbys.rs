//! The replicas that the operator named as required: how far all of them have flushed the log.
//!
//! What they have flushed survives a failover to any of them. The primary knows it from a standby's
//! connection (`pg_stat_replication`); a name is its `application_name`, or the slot that it reads
//! with. Of a standby that is not connected nothing is known, and it holds back everything. Its slot
//! would tell a position, but not always its own: a slot that was reserved and not read with yet, as
//! after a failover, stands at the primary's last checkpoint.
//!
//! All members of a cluster may be named: the primary is not its own standby, and knows its name by
//! its `cluster_name`.

use farwrite_schemas::Lsn;
use sqlx::PgConnection;

use crate::store::server;

/// How far the required replicas have come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Flushed {
    /// All of them have flushed everything up to here.
    All(Lsn),
    /// Nothing is known of these.
    Missing(Vec<String>),
}

/// Asks the primary. Where none is required, everything counts as flushed.
pub(crate) async fn flushed(
    connection: &mut PgConnection,
    required: &[String],
) -> Result<Flushed, sqlx::Error> {
    if required.is_empty() {
        return Ok(Flushed::All(Lsn(u64::MAX)));
    }
    let standbys = server::standbys(connection, required).await?;
    let unknown = standbys.iter().filter(|(_, lsn)| lsn.is_none());
    let missing: Vec<String> = unknown.map(|(name, _)| name.clone()).collect();
    if !missing.is_empty() {
        return Ok(Flushed::Missing(missing));
    }
    let lowest = standbys.into_iter().filter_map(|(_, lsn)| lsn).min();
    // None is left where only the primary itself was named.
    Ok(Flushed::All(lowest.unwrap_or(Lsn(u64::MAX))))
}
