//! The servers and programs of a simulation, and an app's producer in each region.

use std::{path::PathBuf, process::Command, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use farwrite_devstack::{Devstack, Program};
use farwrite_producer::{CommandId, Limits, Producer};
use tokio::sync::Mutex;

use super::Settings;

pub(super) const REGIONS: [&str; 3] = ["ewr", "jfk", "lga"];
const DATABASE: &str = "hop";
/// How long anything may take that must happen.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// A number for each user; a function that raises it.
const APP: &str = "
    CREATE TABLE numbers (key text PRIMARY KEY, n bigint NOT NULL);
    CREATE FUNCTION raise_number(body jsonb, meta farwrite.meta) RETURNS bigint LANGUAGE sql AS $$
        INSERT INTO numbers AS old VALUES (meta.key, (body->>'n')::bigint)
        ON CONFLICT (key) DO UPDATE SET n = greatest(old.n, excluded.n) RETURNING n
    $$;
    SELECT farwrite.register('number.raise', 'raise_number(jsonb, farwrite.meta)');";

/// What runs. Fields are dropped in this order: apps before programs before servers.
pub(super) struct Stage {
    pub(super) producers: Arc<[Producer]>,
    pub(super) worker: Mutex<Program>,
    pub(super) stack: Devstack,
    programs: PathBuf,
}

impl Stage {
    pub(super) async fn set(settings: &Settings) -> Result<Self> {
        let stack = Devstack::builder().regions(REGIONS).rtt(settings.rtt).start().await?;
        stack.primary().create_database(DATABASE).await?;
        let migrate = stack.spawn(command(&stack, &settings.programs, "migrate"), "migrate")?;
        let status = migrate.wait(PATIENCE).await?;
        ensure!(status.success(), "migrate ended ({status})\n{}", migrate.log_tail());
        stack.primary().execute(DATABASE, APP).await?;
        let worker = stack.spawn(command(&stack, &settings.programs, "run"), "worker")?;
        let mut producers = Vec::new();
        for region in REGIONS {
            let builder = Producer::builder(DATABASE.parse()?, region.parse()?)
                .nats_url(stack.nats_url(region)?)
                .limits(Limits { timeout: Duration::from_secs(5), ..Limits::default() });
            let builder = match stack.replica(region) {
                Ok(replica) => {
                    replica.wait_caught_up(stack.primary(), PATIENCE).await?;
                    builder
                        .replica(replica.url(DATABASE))
                        .primary(stack.primary_url_from(region, DATABASE)?)
                }
                Err(_) => builder.primary_reads(stack.primary().url(DATABASE)),
            };
            producers.push(builder.connect().await.context(region)?);
        }
        // Only a worker that serves answers.
        producers[0].outcome_within(CommandId::now(), PATIENCE).await.context("the worker")?;
        let (producers, programs) = (producers.into(), settings.programs.clone());
        Ok(Self { producers, worker: Mutex::new(worker), stack, programs })
    }

    /// Kills the worker, and begins another.
    pub(super) async fn replace_worker(&self) -> Result<()> {
        let mut worker = self.worker.lock().await;
        worker.kill().await?;
        *worker = self.stack.spawn(command(&self.stack, &self.programs, "run"), "worker")?;
        Ok(())
    }

    pub(super) async fn strike(self) -> Result<()> {
        let Self { producers, worker, stack, .. } = self;
        drop((producers, worker));
        stack.shutdown().await
    }
}

fn command(stack: &Devstack, programs: &std::path::Path, subcommand: &str) -> Command {
    let mut command = Command::new(programs.join("primary-worker"));
    command.arg(subcommand).args(["--database", DATABASE]);
    command.args(["--database-url", &stack.primary().url(DATABASE)]);
    command.args(["--nats-url", &stack.nats().url()]);
    command
}
