//! The servers and programs of a run, an app's producer in each region, and what is shared.

use std::{
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use farwrite_devstack::Devstack;
use farwrite_producer::{CommandId, Limits, Producer};
use fastrand::Rng;
use sqlx::PgConnection;
use tokio::sync::{Mutex, RwLock};
use uuid::{NoContext, Timestamp, Uuid};

use farwrite_checker::HistoryWriter;

use super::{Settings, sabotage, schedule::last, workers::Workers};

pub(super) const REGIONS: [&str; 3] = ["ewr", "jfk", "lga"];
pub(super) const DATABASE: &str = "chaos";
/// How long anything may take that must happen.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);
const RTT: Duration = Duration::from_millis(10);

/// Each applied command leaves one row, in the order of its key, and nothing would keep a second
/// one out.
const APP: &str = "
    CREATE TABLE counters (key text PRIMARY KEY, n bigint NOT NULL);
    CREATE TABLE effects (key text NOT NULL, n bigint NOT NULL, id uuid NOT NULL);
    CREATE INDEX ON effects (key, n DESC);
    CREATE TABLE noise (text text);
    CREATE FUNCTION put(body jsonb, meta farwrite.meta) RETURNS bigint LANGUAGE plpgsql AS $$
    DECLARE v_n bigint;
    BEGIN
        INSERT INTO counters AS c VALUES (meta.key, 1)
        ON CONFLICT (key) DO UPDATE SET n = c.n + 1 RETURNING n INTO v_n;
        INSERT INTO effects VALUES (meta.key, v_n, meta.id);
        IF body ? 'refuse' THEN
            RAISE EXCEPTION 'refused by itself';
        ELSIF clock_timestamp() < to_timestamp((body ->> 'fail_until')::float8 / 1000) THEN
            -- So it is parked for certain, and never tried so often that it is dead-lettered.
            RAISE EXCEPTION 'not yet' USING ERRCODE = '40001';
        END IF;
        RETURN v_n;
    END $$;
    SELECT farwrite.register('chaos.put', 'put(jsonb, farwrite.meta)');";

/// What runs. Fields are dropped in this order: apps before programs before servers.
pub(super) struct Stage {
    pub(super) producers: Vec<(&'static str, Producer)>,
    pub(super) workers: Mutex<Workers>,
    pub(super) stack: Devstack,
    pub(super) history: HistoryWriter,
    pub(super) programs: PathBuf,
    /// By how much the producers' clock is wrong, in milliseconds.
    clock_off_ms: AtomicI64,
    pub(super) reapplied: AtomicU64,
    /// Closed, nobody writes or reads.
    pub(super) gate: RwLock<()>,
}

impl Stage {
    pub(super) async fn set(
        settings: &Settings,
        history: HistoryWriter,
        mut random: Rng,
    ) -> Result<Self> {
        let stack = Devstack::builder().regions(REGIONS).rtt(RTT).start().await?;
        stack.primary().create_database(DATABASE).await?;
        let mut migrate = command(&stack, &settings.programs, "migrate")?;
        migrate.args(["--duplicate-window-ms", "2000"]);
        let migrate = stack.spawn(migrate, "migrate")?;
        let status = migrate.wait(PATIENCE).await?;
        ensure!(status.success(), "migrate ended ({status})\n{}", migrate.log_tail());
        stack.primary().execute(DATABASE, APP).await?;
        sabotage::apply(&stack).await?;
        for region in &REGIONS[1..] {
            stack.replica(region)?.wait_caught_up(stack.primary(), PATIENCE).await?;
        }
        let workers = Workers::begin(&stack, &settings.programs, &mut random)?;
        let mut producers = Vec::new();
        for region in REGIONS {
            let builder = Producer::builder(DATABASE.parse()?, region.parse()?)
                .nats_url(stack.nats_url(region)?)
                .limits(Limits { timeout: Duration::from_secs(3), ..Limits::default() })
                .replica(stack.server(region)?.url(DATABASE))
                .primary(stack.primary_url_from(region, DATABASE)?);
            producers.push((region, builder.connect().await.context(region)?));
        }
        // Only a worker that serves answers.
        let id = CommandId::now();
        producers[0].1.outcome_within(id, PATIENCE).await.context("the worker")?;
        Ok(Self {
            producers,
            workers: Mutex::new(workers),
            stack,
            history,
            programs: settings.programs.clone(),
            clock_off_ms: AtomicI64::new(0),
            reapplied: AtomicU64::new(0),
            gate: RwLock::new(()),
        })
    }

    /// How many commands were applied again after a failover.
    pub(super) fn reapplied(&self) -> u64 {
        self.reapplied.load(Ordering::Relaxed)
    }

    /// A connection to whoever is the primary now.
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

    pub(super) async fn jump_clock(&self, random: &mut Rng) -> Result<()> {
        // Within the day that an id may be ahead of the stream, and the week that it may be old.
        let hours = random.i64(-100..20);
        self.clock_off_ms.store(hours * 3_600_000, Ordering::Relaxed);
        last(random, 500..3_000).await;
        self.clock_off_ms.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// Ends everything.
    pub(super) async fn strike(self) -> Result<()> {
        let Self { producers, workers, stack, .. } = self;
        drop((producers, workers));
        stack.shutdown().await
    }
}

/// The time by the machine's clock, in milliseconds since 1970.
pub(super) fn now_ms() -> i64 {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
    i64::try_from(now).unwrap_or(i64::MAX)
}

/// A subcommand of the worker program that knows all servers.
pub(super) fn command(
    stack: &Devstack,
    programs: &std::path::Path,
    subcommand: &str,
) -> Result<Command> {
    let urls = REGIONS.map(|region| Ok(stack.server(region)?.url(DATABASE)));
    let urls = urls.into_iter().collect::<Result<Vec<_>>>()?.join(",");
    let mut command = Command::new(programs.join("primary-worker"));
    command.arg(subcommand).args(["--database", DATABASE, "--database-url", &urls]);
    command.args(["--nats-url", &stack.nats().url(), "--stream-max-bytes", "268435456"]);
    command.args(["--required-standbys", &REGIONS.join(","), "--trim-min-age-s", "5"]);
    command.args(["--lease-ms", "1000", "--retry-pause-ms", "20"]);
    Ok(command)
}

/// The stage is what everybody holds.
pub(super) type Shared = Arc<Stage>;
