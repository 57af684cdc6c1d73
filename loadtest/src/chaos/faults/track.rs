//! One track of faults. Each kind comes once before any comes again.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use fastrand::Rng;
use tokio_util::sync::CancellationToken;

use crate::chaos::{
    fault::{FaultKind, FaultTrack},
    pauses::Pauses,
    settings::ChaosSettings,
    stage::ChaosStage,
};

/// How often each fault was made.
#[derive(Debug, Default)]
pub(in crate::chaos) struct FaultCounts(Mutex<BTreeMap<&'static str, u64>>);

impl FaultCounts {
    pub(in crate::chaos) fn into_counts(self) -> BTreeMap<&'static str, u64> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, kind: FaultKind) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(kind.as_str()).or_default() += 1;
    }
}

/// What both tracks of a run share.
pub(in crate::chaos) struct Faults<'a> {
    pub(in crate::chaos) settings: &'a ChaosSettings,
    pub(in crate::chaos) stage: &'a ChaosStage,
    /// Cancelled when the time is up.
    pub(in crate::chaos) calm: CancellationToken,
    pub(in crate::chaos) counts: FaultCounts,
    pub(in crate::chaos) pauses: &'a Pauses,
}

impl Faults<'_> {
    /// Makes the faults of one track until it is calm.
    pub(in crate::chaos) async fn run(&self, track: FaultTrack, mut random: Rng) -> Result<()> {
        let Self { settings, stage, calm, counts, pauses } = self;
        let mut kinds = settings.faults();
        kinds.retain(|kind| kind.track() == track);
        let mut bag = Vec::new();
        while !kinds.is_empty() && !calm.is_cancelled() {
            if bag.is_empty() {
                bag.clone_from(&kinds);
                random.shuffle(&mut bag);
            }
            let Some(kind) = bag.pop() else { break };
            stage.history.fault(kind.as_str(), "")?;
            let began = Instant::now();
            make(kind, stage, &mut random).await.with_context(|| kind.as_str())?;
            stage.history.healed(kind.as_str(), "")?;
            pauses.fault(kind.as_str(), began);
            counts.add(kind);
            let pause = Duration::from_millis(random.u64(settings.schedule.calm_ms(track)));
            let _ = tokio::time::timeout(pause, calm.cancelled()).await;
        }
        Ok(())
    }
}

/// Makes one fault, and mends it.
async fn make(kind: FaultKind, stage: &ChaosStage, random: &mut Rng) -> Result<()> {
    match kind {
        FaultKind::WorkerKill => stage.kill_worker(random).await,
        FaultKind::WorkerStop => stage.stop_worker(random).await,
        FaultKind::WorkerDeploy => stage.deploy_worker(random).await,
        FaultKind::WorkerForced => stage.force_worker(random).await,
        FaultKind::BrokerKill => stage.kill_broker(random).await,
        FaultKind::BrokerStall => stage.stall_broker(random).await,
        FaultKind::WanCut => stage.cut_links(random).await,
        FaultKind::WanSlow => stage.slow_links(random).await,
        FaultKind::ReplicaPause => stage.pause_replica(random).await,
        FaultKind::ReplicaKill => stage.kill_replica(random).await,
        FaultKind::ReplicationCut => stage.cut_replication(random).await,
        FaultKind::ConnectionDrop => stage.drop_connections(random),
        FaultKind::ConnectionForget => stage.forget_connections(random),
        FaultKind::Failover => stage.fail_over(random).await,
        FaultKind::LongTransaction => stage.hold_transaction(random).await,
        FaultKind::ClockJump => stage.jump_clock(random).await,
        FaultKind::BrokerRestore => stage.restore_broker(random).await,
    }
}
