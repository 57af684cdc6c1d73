//! Everything that runs during the demo: the servers, the worker and the watcher as programs of
//! their own, and in each region an app's producer.
//!
//! The stack's reaper owns all processes, so that none stays behind after any end of the demo.

use std::{net::SocketAddr, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use farwrite_devstack::{Devstack, Program};
use farwrite_producer::{CommandId, Limits, Producer, ReadsFrom};
use sqlx::PgConnection;

use super::settings::{DemoSettings, HandlerKind};
use crate::kit::{free_address, program, run_to_end};

/// The database's name, in PostgreSQL and in Farwrite.
const DATABASE: &str = "flights";
/// How long the broker suppresses repeated ids itself: short, so that copies can come after it.
pub(super) const DUPLICATE_WINDOW: Duration = Duration::from_secs(2);
/// The stream's size, for 336,776 commands three times over.
const STREAM_MAX_BYTES: u64 = 1 << 30;
/// How long a program may take to start or to end: far more than on any machine that is well.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the worker may take to stop when it is asked to.
const STOP: Duration = Duration::from_secs(5);

/// What runs. Fields are dropped in this order: apps before programs before servers.
pub(super) struct DemoStage {
    /// One for each region, in the regions' order.
    pub(super) producers: Vec<Producer>,
    worker: Program,
    watcher: Option<Program>,
    worker_metrics: SocketAddr,
    stack: Devstack,
}

impl DemoStage {
    /// Starts everything, and returns when the worker answers.
    pub(super) async fn set(settings: &DemoSettings) -> Result<Self> {
        // First of all: a missing program should not cost the start of a stack.
        let worker = program(settings.handler.program())?;
        let farwrite = program("farwrite")?;
        let stack =
            Devstack::builder().regions(&settings.regions).rtt(settings.rtt).start().await?;
        prepare(&stack, &farwrite, settings.handler).await?;
        let worker_metrics = free_address()?;
        let mut command = worker_command(&stack, &worker, "run");
        command.args(["--metrics-addr", &worker_metrics.to_string()]);
        let worker = stack.spawn(command, settings.handler.program())?;
        let watched = watched(&settings.regions);
        let watcher = match watched {
            Some(region) => Some(watch(&stack, &farwrite, region)?),
            None => None,
        };
        let mut producers = Vec::with_capacity(settings.regions.len());
        for region in &settings.regions {
            producers.push(producer(&stack, region, watched == Some(region)).await?);
        }
        let stage = Self { producers, worker, watcher, worker_metrics, stack };
        stage.worker_answers().await?;
        Ok(stage)
    }

    /// Asks a question that only a serving worker answers.
    async fn worker_answers(&self) -> Result<()> {
        let asking = self.producers[0].outcome_within(CommandId::now(), PATIENCE);
        tokio::select! {
            biased;
            ended = self.program_ended() => Err(ended),
            answer = asking => answer.map(drop).context("the worker does not answer"),
        }
    }

    /// Ends with an error when a program does.
    pub(super) async fn program_ended(&self) -> anyhow::Error {
        loop {
            if let Err(error) = self.check_programs() {
                return error;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn check_programs(&self) -> Result<()> {
        for (name, program) in [("worker", Some(&self.worker)), ("watcher", self.watcher.as_ref())]
        {
            if let Some(program) = program
                && let Some(status) = program.status()?
            {
                bail!("the {name} ended ({status})\nthe end of its log:\n{}", program.log_tail());
            }
        }
        Ok(())
    }

    /// The end of the worker's log, for an error.
    pub(super) fn worker_log(&self) -> String {
        self.worker.log_tail()
    }

    /// Where the worker serves its metrics.
    pub(super) const fn worker_metrics(&self) -> SocketAddr {
        self.worker_metrics
    }

    /// A connection to the primary.
    pub(super) async fn primary(&self) -> Result<PgConnection> {
        self.stack.primary().connect(DATABASE).await
    }

    /// The name of the command stream.
    pub(super) fn stream() -> String {
        format!("farwrite-{DATABASE}")
    }

    /// A NATS client beside the broker.
    pub(super) async fn nats(&self) -> Result<async_nats::Client> {
        Ok(async_nats::connect(self.stack.nats().url()).await?)
    }

    /// Stops everything: the programs as an operator would, then the servers.
    pub(super) async fn strike(self) -> Result<()> {
        let Self { producers, worker, watcher, stack, .. } = self;
        drop(producers);
        let status = worker.terminate(STOP).await?;
        ensure!(status.success(), "the worker, asked to stop, ended with {status}");
        if let Some(watcher) = watcher {
            let status = watcher.terminate(STOP).await?;
            ensure!(status.success(), "the watcher, asked to stop, ended with {status}");
        }
        stack.shutdown().await
    }
}

/// The region whose app waits through the watcher program: the last one, if it has a replica. The
/// others' apps watch their replica on their own.
pub(super) fn watched(regions: &[String]) -> Option<&String> {
    regions.get(1..)?.last()
}

fn worker_command(stack: &Devstack, program: &Path, subcommand: &str) -> Command {
    let mut command = Command::new(program);
    command.args(["worker", subcommand, "--database", DATABASE]);
    command.args(["--database-url", &stack.primary().url(DATABASE)]);
    command.args(["--nats-url", &stack.nats().url()]);
    command
}

/// What an operator and a developer do once: migrate, make the app's tables, register its
/// functions.
async fn prepare(stack: &Devstack, farwrite: &Path, handler: HandlerKind) -> Result<()> {
    stack.primary().create_database(DATABASE).await?;
    let mut command = worker_command(stack, farwrite, "migrate");
    command.args(["--stream-max-bytes", &STREAM_MAX_BYTES.to_string()]);
    command.args(["--duplicate-window-ms", &DUPLICATE_WINDOW.as_millis().to_string()]);
    run_to_end(stack, command, "migrate", PATIENCE).await?;
    stack.primary().execute(DATABASE, include_str!("../../demo/tables.sql")).await?;
    if handler == HandlerKind::Sql {
        stack.primary().execute(DATABASE, include_str!("../../demo/flights.sql")).await?;
    }
    for region in &stack.regions()[1..] {
        stack.replica(region)?.wait_caught_up(stack.primary(), PATIENCE).await?;
    }
    Ok(())
}

fn watch(stack: &Devstack, farwrite: &Path, region: &str) -> Result<Program> {
    let mut command = Command::new(farwrite);
    command.args(["watcher", "run", "--database", DATABASE, "--region", region]);
    command.args(["--replica-url", &stack.replica(region)?.url(DATABASE)]);
    command.args(["--nats-url", &stack.nats_url(region)?]);
    stack.spawn(command, "watcher")
}

/// The producer of a region's app: over the region's own link to NATS, reading next door.
async fn producer(stack: &Devstack, region: &str, over_nats: bool) -> Result<Producer> {
    let reads = match stack.replica(region) {
        Ok(replica) if over_nats => ReadsFrom::replica(replica.url(DATABASE)).over_nats().into(),
        Ok(replica) => ReadsFrom::replica(replica.url(DATABASE)).into(),
        Err(_) => ReadsFrom::primary(stack.primary().url(DATABASE)),
    };
    let builder = Producer::builder(DATABASE.parse()?, region.parse()?)
        .nats_url(stack.nats_url(region)?)
        .reads(reads)
        .limits(Limits::default().timeout(PATIENCE));
    builder.connect().await.with_context(|| format!("the app of {region}"))
}
