//! The servers and programs of a run, an app's producer in each region, and what is shared.

use std::{
    collections::HashSet,
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
    time::Duration,
};

use anyhow::{Context, Result};
use farwrite_devstack::{Devstack, WanLink};
use farwrite_producer::{CommandId, Limits, Producer, ReadsFrom};
use fastrand::Rng;
use sqlx::PgConnection;
use tokio::sync::{Mutex, RwLock};
use uuid::{NoContext, Timestamp, Uuid};

use farwrite_checker::HistoryWriter;

use super::{
    app::{APP, DATABASE, PATIENCE, REGIONS, worker_command},
    sabotage,
    workers::Workers,
};
use crate::kit::run_to_end;

const RTT: Duration = Duration::from_millis(10);

/// The ids of atomic batches, and of their members.
#[derive(Default)]
pub(super) struct Batches {
    pub(super) wholes: HashSet<Uuid>,
    pub(super) members: HashSet<Uuid>,
}

/// What runs. Fields are dropped in this order: apps before programs before servers.
pub(super) struct ChaosStage {
    pub(super) producers: Vec<(&'static str, Producer)>,
    pub(super) workers: Mutex<Workers>,
    /// The last region reads through it, from one of two servers.
    balancer: WanLink,
    pub(super) stack: Devstack,
    /// Atomic batches, and their members: their order is not that of their own messages.
    pub(super) batches: std::sync::Mutex<Batches>,
    pub(super) history: HistoryWriter,
    /// By how much the producers' clock is wrong, in milliseconds.
    pub(super) clock_off_ms: AtomicI64,
    pub(super) reapplied: AtomicU64,
    /// Closed, nobody writes or reads.
    pub(super) gate: RwLock<()>,
}

impl ChaosStage {
    pub(super) async fn set(history: HistoryWriter, mut random: Rng) -> Result<Self> {
        let stack = Devstack::builder().regions(REGIONS).rtt(RTT).start().await?;
        stack.primary().create_database(DATABASE).await?;
        let mut migrate = worker_command(&stack, "migrate")?;
        migrate.args(["--duplicate-window-ms", "2000"]);
        run_to_end(&stack, migrate, "migrate", PATIENCE).await?;
        stack.primary().execute(DATABASE, APP).await?;
        sabotage::apply(&stack).await?;
        for region in &REGIONS[1..] {
            stack.replica(region)?.wait_caught_up(stack.primary(), PATIENCE).await?;
        }
        let workers = Workers::begin(&stack, &mut random)?;
        let balancer = stack.balancer(&REGIONS[1..])?;
        let balanced = format!("postgres://postgres@{}/{DATABASE}", balancer.addr());
        let mut producers = Vec::new();
        for region in REGIONS {
            let is_last = REGIONS.last() == Some(&region);
            let url = if is_last { balanced.clone() } else { stack.server(region)?.url(DATABASE) };
            let builder = Producer::builder(DATABASE.parse()?, region.parse()?)
                .nats_url(stack.nats_url(region)?)
                .limits(Limits::default().timeout(Duration::from_secs(3)))
                .reads(
                    ReadsFrom::replica(url).or_primary(stack.primary_url_from(region, DATABASE)?),
                );
            producers.push((region, builder.connect().await.context(region)?));
        }
        // Only a worker that serves answers.
        let id = CommandId::now();
        producers[0].1.outcome_within(id, PATIENCE).await.context("the worker")?;
        Ok(Self {
            producers,
            workers: Mutex::new(workers),
            balancer,
            stack,
            batches: std::sync::Mutex::default(),
            history,
            clock_off_ms: AtomicI64::new(0),
            reapplied: AtomicU64::new(0),
            gate: RwLock::new(()),
        })
    }

    /// How many commands were applied again after a failover.
    pub(super) fn reapplied(&self) -> u64 {
        self.reapplied.load(Ordering::Relaxed)
    }

    /// A connection to the server that is the primary now.
    pub(super) async fn primary(&self) -> Result<PgConnection> {
        self.stack.primary().connect(DATABASE).await
    }

    /// An id with the time of the producers' clock.
    pub(super) fn new_id(&self) -> CommandId {
        let off = self.clock_off_ms.load(Ordering::Relaxed);
        if off == 0 {
            return CommandId::now();
        }
        let ms = now_ms().saturating_add(off).unsigned_abs();
        let nanos = u32::try_from(ms % 1_000).unwrap_or(0) * 1_000_000;
        CommandId::from_uuid(Uuid::new_v7(Timestamp::from_unix(NoContext, ms / 1_000, nanos)))
    }

    /// Ends everything.
    pub(super) async fn strike(self) -> Result<()> {
        let Self { producers, workers, balancer, stack, .. } = self;
        drop((producers, workers, balancer));
        stack.shutdown().await
    }
}

/// The time by the machine's clock, in milliseconds since 1970.
pub(super) fn now_ms() -> i64 {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
    i64::try_from(now).unwrap_or(i64::MAX)
}
