//! Which faults there are, and when: drawn from the seed.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use fastrand::Rng;
use tokio_util::sync::CancellationToken;

use super::{pauses::Pauses, stage::Stage};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A worker is killed, and begun again.
    WorkerKill,
    /// A worker is stopped in its tracks for longer than its lease, and woken.
    WorkerStop,
    /// A worker is asked to stop, and another begun: a rolling deploy, with another number of lanes.
    WorkerDeploy,
    /// A worker takes over from one that works: for a moment two believe that they are active.
    WorkerForced,
    /// The broker is killed, and begun again.
    BrokerKill,
    /// The broker stands still in pulses.
    BrokerStall,
    /// A region's links to the broker and the primary are cut.
    WanCut,
    /// A region's links are slow.
    WanSlow,
    /// A replica does not replay.
    ReplicaPause,
    /// A replica is killed, and begun again.
    ReplicaKill,
    /// A standby that lags is promoted, and the primary lost.
    Failover,
    /// Somebody holds a transaction open on the primary, with rows of the app locked.
    LongTransaction,
    /// The producers' clock jumps by hours.
    ClockJump,
    /// The broker comes back with an older copy of its store and uses sequences again: the worker
    /// stops, and an operator adopts the stream.
    BrokerRestore,
}

/// Faults of one track follow each other; the tracks run beside each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Track {
    Workers,
    Servers,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::WorkerKill,
        Self::WorkerStop,
        Self::WorkerDeploy,
        Self::WorkerForced,
        Self::BrokerKill,
        Self::BrokerStall,
        Self::WanCut,
        Self::WanSlow,
        Self::ReplicaPause,
        Self::ReplicaKill,
        Self::Failover,
        Self::LongTransaction,
        Self::ClockJump,
        Self::BrokerRestore,
    ];

    /// As flags and reports have it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::WorkerKill => "worker_kill",
            Self::WorkerStop => "worker_stop",
            Self::WorkerDeploy => "worker_deploy",
            Self::WorkerForced => "worker_forced",
            Self::BrokerKill => "broker_kill",
            Self::BrokerStall => "broker_stall",
            Self::WanCut => "wan_cut",
            Self::WanSlow => "wan_slow",
            Self::ReplicaPause => "replica_pause",
            Self::ReplicaKill => "replica_kill",
            Self::Failover => "failover",
            Self::LongTransaction => "long_transaction",
            Self::ClockJump => "clock_jump",
            Self::BrokerRestore => "broker_restore",
        }
    }

    /// The kind of that word.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }

    /// What was asked for; else all that end without an operator.
    pub(super) fn chosen(asked: &[Self]) -> Vec<Self> {
        if asked.is_empty() {
            return Self::ALL.into_iter().filter(|kind| *kind != Self::BrokerRestore).collect();
        }
        asked.to_vec()
    }

    const fn track(self) -> Track {
        match self {
            Self::WorkerKill | Self::WorkerStop | Self::WorkerDeploy | Self::WorkerForced => {
                Track::Workers
            }
            Self::BrokerKill
            | Self::BrokerStall
            | Self::WanCut
            | Self::WanSlow
            | Self::ReplicaPause
            | Self::ReplicaKill
            | Self::Failover
            | Self::LongTransaction
            | Self::ClockJump
            | Self::BrokerRestore => Track::Servers,
        }
    }

    async fn make(self, stage: &Stage, random: &mut Rng) -> Result<()> {
        match self {
            Self::WorkerKill => stage.kill_worker(random).await,
            Self::WorkerStop => stage.stop_worker(random).await,
            Self::WorkerDeploy => stage.deploy_worker(random).await,
            Self::WorkerForced => stage.force_worker(random).await,
            Self::BrokerKill => stage.kill_broker(random).await,
            Self::BrokerStall => stage.stall_broker(random).await,
            Self::WanCut => stage.cut_links(random).await,
            Self::WanSlow => stage.slow_links(random).await,
            Self::ReplicaPause => stage.pause_replica(random).await,
            Self::ReplicaKill => stage.kill_replica(random).await,
            Self::Failover => stage.fail_over(random).await,
            Self::LongTransaction => stage.hold_transaction(random).await,
            Self::ClockJump => stage.jump_clock(random).await,
            Self::BrokerRestore => stage.restore_broker(random).await,
        }
    }
}

/// How often each fault was made.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<BTreeMap<&'static str, u64>>);

impl Tally {
    pub(super) fn into_counts(self) -> BTreeMap<&'static str, u64> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, kind: Kind) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(kind.word()).or_default() += 1;
    }
}

/// Makes faults of one track until it is calm.
pub(super) async fn run(
    stage: &Stage,
    track: Track,
    kinds: &[Kind],
    mut random: Rng,
    calm: &CancellationToken,
    tally: &Tally,
    pauses: &Pauses,
) -> Result<()> {
    let kinds: Vec<Kind> = kinds.iter().copied().filter(|kind| kind.track() == track).collect();
    // Every kind comes once before any comes again.
    let mut bag = Vec::new();
    while !kinds.is_empty() && !calm.is_cancelled() {
        if bag.is_empty() {
            bag.clone_from(&kinds);
            random.shuffle(&mut bag);
        }
        let Some(kind) = bag.pop() else { break };
        stage.history.fault(kind.word(), "")?;
        let began = Instant::now();
        kind.make(stage, &mut random).await.with_context(|| kind.word())?;
        stage.history.healed(kind.word(), "")?;
        pauses.fault(kind.word(), began);
        tally.add(kind);
        nap(calm, random.u64(200..1_500)).await;
    }
    Ok(())
}

/// Waits, unless it is calm.
async fn nap(calm: &CancellationToken, ms: u64) {
    let _ = tokio::time::timeout(Duration::from_millis(ms), calm.cancelled()).await;
}

/// Lets a fault last.
pub(super) async fn last(random: &mut Rng, ms: std::ops::Range<u64>) {
    tokio::time::sleep(Duration::from_millis(random.u64(ms))).await;
}
