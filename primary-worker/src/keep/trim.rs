//! Trimming the stream, only behind the replicas (invariant 8).
//!
//! A command stays in the stream until its commit is safe on every replica that the operator named,
//! and for a minimum age longer; so a failover to any of them finds in the stream what it lacks.
//! What the floor may be is proven in this order: the database's positions are read, then how far its
//! log is flushed; when every required replica has flushed that much, it holds those positions, and
//! what lies below can go. The message at the highest position stays, for the next worker to compare.
//!
//! Age is taken from the samples of the hints: at a time, everything up to a sequence was settled.
//! Where nobody said which replicas are required, and the primary has or had a standby, nothing is trimmed. A primary
//! that never had one has nothing to wait for.

use std::{collections::VecDeque, time::Duration};

use async_nats::jetstream::{Context, stream::Stream};
use farwrite_schemas::Lsn;
use sqlx::PgConnection;
use tracing::{info, warn};

use crate::{
    config::Config,
    life::{compare::compare, may_answer::MayAnswer, takeover::Takeover},
    metrics,
    store::{lanes, server, streams},
};

use super::{
    keeper::HintKeeper,
    standbys::{Flushed, flushed},
};

/// Positions that wait for the replicas, one a second. Beyond that number every second one of them is
/// dropped: replicas that are so far behind are looked at less finely.
const PROOFS_MAX: usize = 256;
/// How long JetStream may take.
const WITHIN: Duration = Duration::from_secs(5);

/// When the log is flushed up to `lsn` on a replica, it holds a position of at least `floor`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Proof {
    /// Everything below may go, once it is old enough.
    floor: u64,
    lsn: Lsn,
}

/// What waits for the replicas, oldest first.
#[derive(Debug, Default)]
struct Proofs {
    waiting: VecDeque<Proof>,
    /// The highest floor that every required replica holds.
    safe: u64,
}

impl Proofs {
    /// Notes a position that waits for the replicas.
    fn note(&mut self, proof: Proof) {
        if self.waiting.back().is_some_and(|last| last.floor >= proof.floor) {
            return;
        }
        if self.waiting.len() >= PROOFS_MAX {
            let mut is_odd = false;
            self.waiting.retain(|_| {
                is_odd = !is_odd;
                is_odd
            });
        }
        self.waiting.push_back(proof);
    }

    /// Every required replica has flushed so much.
    fn confirm(&mut self, flushed: Lsn) {
        while let Some(proof) = self.waiting.pop_front_if(|proof| proof.lsn <= flushed) {
            self.safe = self.safe.max(proof.floor);
        }
    }
}

/// Trims one stream for one takeover.
pub(crate) struct Trimmer {
    context: Context,
    stream: Stream,
    required: Option<Vec<String>>,
    min_age: Duration,
    proofs: Proofs,
    trimmed: u64,
    may_answer: MayAnswer,
    /// Who was missing the last time, so that it is said once.
    missing: Vec<String>,
    /// Whether it was said that nothing is trimmed.
    has_said: bool,
}

impl Trimmer {
    pub(crate) fn new(
        context: Context,
        stream: Stream,
        config: &Config,
        may_answer: MayAnswer,
    ) -> Self {
        Self {
            context,
            stream,
            required: config.required_standbys.clone(),
            min_age: config.trim_min_age,
            proofs: Proofs::default(),
            trimmed: 0,
            may_answer,
            missing: Vec::new(),
            has_said: false,
        }
    }

    /// Which replicas must hold a command before it goes; `None` where nobody can know.
    async fn required(
        &mut self,
        connection: &mut PgConnection,
        stream_id: i32,
    ) -> Result<Option<Vec<String>>, sqlx::Error> {
        if self.required.is_some() {
            return Ok(self.required.clone());
        }
        if !streams::had_standby(connection, stream_id).await? {
            return Ok(Some(Vec::new()));
        }
        if !std::mem::replace(&mut self.has_said, true) {
            warn!(
                "nothing is trimmed from the stream, which will be full one day: say which standbys must hold a command before it goes (--required-standbys, or none)"
            );
        }
        Ok(None)
    }

    /// Looks how far may be trimmed, and does it when `now` is a time for that. What JetStream says
    /// against it is logged, and tried again the next time.
    pub(crate) async fn tick(
        &mut self,
        connection: &mut PgConnection,
        takeover: &Takeover,
        keeper: &HintKeeper,
        now: bool,
    ) -> Result<(), sqlx::Error> {
        let Some(required) = self.required(connection, takeover.stream_id).await? else {
            return Ok(());
        };
        let Some((proof, now_ns)) = prove(connection, takeover.stream_id).await? else {
            return Ok(());
        };
        self.proofs.note(proof);
        match flushed(connection, &required).await? {
            Flushed::All(lsn) => {
                self.proofs.confirm(lsn);
                if !self.missing.is_empty() {
                    info!("all required standbys are known again: the stream is trimmed");
                    self.missing.clear();
                }
            }
            Flushed::Missing(names) => {
                if self.missing != names {
                    warn!(
                        ?names,
                        "required standbys are not connected, or this role may not see them (pg_monitor): nothing is trimmed"
                    );
                    self.missing = names;
                }
            }
        }
        metrics::standbys_missing(self.missing.len());
        let min_age_ns = i64::try_from(self.min_age.as_nanos()).unwrap_or(i64::MAX);
        let aged = keeper.settled_before(now_ns.saturating_sub(min_age_ns)).saturating_add(1);
        let floor = self.proofs.safe.min(aged);
        if !now || floor <= self.trimmed || !self.may_answer.now() {
            return Ok(());
        }
        if streams::raise_trim_floor(connection, takeover.stream_id, floor, takeover.epoch).await?
            && let Err(reason) = self.purge(connection, floor).await
        {
            warn!(floor, reason, "the stream could not be trimmed");
        }
        Ok(())
    }

    /// Drops what lies below the floor, of the stream whose positions the database holds: one that
    /// was put back from a copy may have something else there that was never applied.
    async fn purge(&mut self, connection: &mut PgConnection, floor: u64) -> Result<(), String> {
        let purging = async {
            let compared = compare(connection, &self.context, &self.stream).await;
            compared.map_err(|error| error.to_string())?;
            self.stream.purge().sequence(floor).await.map_err(|error| error.to_string())
        };
        let purged = tokio::time::timeout(WITHIN, purging).await;
        let purged = purged.map_err(|_| "no answer in time".to_owned())??;
        self.trimmed = floor;
        metrics::trimmed(floor, purged.purged);
        Ok(())
    }
}

/// What the database holds now, and where its log must be flushed for a replica to hold it too;
/// with the primary's time. `None` before anything was passed: nothing proves the stream then.
async fn prove(
    connection: &mut PgConnection,
    stream_id: i32,
) -> Result<Option<(Proof, i64)>, sqlx::Error> {
    let Some(reached) = lanes::reached(connection, stream_id).await? else { return Ok(None) };
    let floor = (reached.low_water + 1).min(reached.proven);
    // After the rows: a commit that is seen is flushed.
    let lsn = server::flush_lsn(connection).await?;
    Ok((floor > 0).then_some((Proof { floor, lsn }, reached.now_ns)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proof(floor: u64) -> Proof {
        Proof { floor, lsn: Lsn(floor * 10) }
    }

    #[test]
    fn only_what_a_replica_has_flushed_is_safe() {
        let mut proofs = Proofs::default();
        for floor in [5, 9, 9, 8, 12] {
            proofs.note(proof(floor));
        }
        for (flushed, safe) in [(49, 0), (50, 5), (119, 9), (60, 9), (500, 12)] {
            proofs.confirm(Lsn(flushed));
            assert_eq!(proofs.safe, safe, "{flushed}");
        }
    }

    #[test]
    fn proofs_that_wait_are_bounded_and_the_newest_is_kept() {
        let mut proofs = Proofs::default();
        for floor in 1..=10_000 {
            proofs.note(proof(floor));
            assert!(proofs.waiting.len() <= PROOFS_MAX);
        }
        proofs.confirm(Lsn(50_000));
        assert!((1..=5_000).contains(&proofs.safe), "{}", proofs.safe);
        proofs.confirm(Lsn(100_000));
        assert_eq!(proofs.safe, 10_000);
    }
}
