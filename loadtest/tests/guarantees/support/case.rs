//! A database, a stream and an app of one test, and the programs that run on them.

use std::{
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use async_nats::jetstream;
use farwrite_devstack::{Devstack, Program};
use farwrite_loadtest::kit::program;
use farwrite_producer::{Limits, Producer, ReadsFrom};
use farwrite_schemas::NatsServers;
use sqlx::PgConnection;

use super::{
    ran::Ran,
    servers::{DEADLINE, stack},
};

/// The app's side of a test. Every applied command leaves a row, in the order of its key. No
/// constraint of the tables would hide a second effect.
const APP: &str = "
    CREATE SCHEMA app;
    CREATE TABLE app.keys (key text PRIMARY KEY, effects integer NOT NULL);
    CREATE TABLE app.effects (key text NOT NULL, place integer NOT NULL, command_id uuid NOT NULL, n integer NOT NULL);
    CREATE FUNCTION app.append(body jsonb, meta farwrite.meta) RETURNS jsonb LANGUAGE plpgsql AS $$
    DECLARE v_place integer;
    BEGIN
        INSERT INTO app.keys AS k VALUES (coalesce(meta.key, meta.id::text), 1)
        ON CONFLICT (key) DO UPDATE SET effects = k.effects + 1 RETURNING effects INTO v_place;
        INSERT INTO app.effects VALUES (coalesce(meta.key, meta.id::text), v_place, meta.id, (body->>'n')::integer);
        IF body ? 'refuse' THEN
            RAISE EXCEPTION 'refused: %', body->>'refuse';
        END IF;
        RETURN jsonb_build_object('place', v_place);
    END $$;
    SELECT farwrite.register('app.append', 'app.append(jsonb, farwrite.meta)');";

/// A database, a stream and an app of one test.
pub(crate) struct Case {
    pub(crate) stack: &'static Devstack,
    pub(crate) name: String,
    pub(crate) client: async_nats::Client,
    pub(crate) context: jetstream::Context,
}

impl Case {
    /// Prepares everything with `farwrite worker migrate`; `migrate` are more flags for it.
    pub(crate) async fn new(test: &str, migrate: &[&str]) -> Result<Self> {
        Self::on(stack().await?, test, migrate).await
    }

    /// The same on another stack than the shared one.
    pub(crate) async fn on(stack: &'static Devstack, test: &str, migrate: &[&str]) -> Result<Self> {
        static CASES: AtomicU32 = AtomicU32::new(0);
        let name = format!("{test}_{}", CASES.fetch_add(1, Ordering::Relaxed));
        stack.primary().create_database(&name).await?;
        let client = async_nats::connect(NatsServers::parse(&stack.nats_urls()).urls).await?;
        let context = jetstream::new(client.clone());
        let case = Self { stack, name, client, context };
        let migrated = case.spawn("migrate", migrate, &[])?;
        let status = migrated.wait(DEADLINE).await?;
        ensure!(status.success(), "migrate: {status}\n{}", migrated.log_tail());
        stack.primary().execute(&case.name, APP).await?;
        Ok(case)
    }

    /// A subcommand of `farwrite worker`, or of an operator's, for this case.
    pub(crate) fn spawn(
        &self,
        subcommand: &str,
        flags: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Program> {
        let command = self.command(subcommand, flags, environment)?;
        self.stack.spawn(command, &format!("worker-{}", self.name))
    }

    /// Runs a subcommand to its end.
    pub(crate) async fn run(&self, subcommand: &str, flags: &[&str]) -> Result<Ran> {
        self.run_with(subcommand, flags, &[]).await
    }

    /// Runs a subcommand to its end, with more of an environment.
    pub(crate) async fn run_with(
        &self,
        subcommand: &str,
        flags: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Ran> {
        let command = self.command(subcommand, flags, environment)?;
        let mut command = tokio::process::Command::from(command);
        let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
        let output = tokio::time::timeout(DEADLINE, output).await??;
        Ok(Ran {
            code: output.status.code(),
            out: String::from_utf8(output.stdout)?,
            err: String::from_utf8(output.stderr)?,
        })
    }

    fn command(
        &self,
        subcommand: &str,
        flags: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Command> {
        let mut command = Command::new(program("farwrite")?);
        if matches!(subcommand, "migrate" | "run" | "adopt-stream" | "adopt-database") {
            command.arg("worker");
        }
        command
            .arg(subcommand)
            .args(flags)
            .env("FARWRITE_DATABASE", &self.name)
            .env("FARWRITE_DATABASE_URL", self.stack.primary().url(&self.name))
            .env("FARWRITE_NATS_URL", self.stack.nats_urls())
            // JetStream sets a new stream's whole size aside, and there are many here.
            .env("FARWRITE_STREAM_MAX_BYTES", "67108864")
            // Long enough that such commands are parked, short enough to wait for.
            .env("FARWRITE_UNKNOWN_KEEP_S", "1")
            .envs(environment.iter().copied());
        Ok(command)
    }

    /// The worker, begun.
    pub(crate) fn worker(&self) -> Result<Program> {
        self.spawn("run", &[], &[])
    }

    /// The worker, begun, and serving.
    pub(crate) async fn serving_worker(&self) -> Result<Program> {
        self.serving(&[]).await
    }

    /// The same with more flags.
    pub(crate) async fn serving(&self, flags: &[&str]) -> Result<Program> {
        let worker = self.spawn("run", flags, &[])?;
        self.until("the worker serves", async || Ok(worker.log().contains(" serving epoch=")))
            .await?;
        Ok(worker)
    }

    /// The watcher program of a region, begun.
    pub(crate) fn watcher(&self, region: &str) -> Result<Program> {
        let mut command = Command::new(program("farwrite")?);
        command.args(["watcher", "run", "--database", &self.name, "--region", region]);
        command.args(["--nats-url", &self.stack.nats_urls()]);
        command.args(["--replica-url", &self.stack.replica(region)?.url(&self.name)]);
        command.args(["--metrics-addr", "127.0.0.1:0"]);
        self.stack.spawn(command, &format!("watcher-{}-{region}", self.name))
    }

    /// Asks until it is so.
    pub(crate) async fn until(
        &self,
        what: &str,
        mut is_so: impl AsyncFnMut() -> Result<bool>,
    ) -> Result<()> {
        let began = Instant::now();
        while !is_so().await? {
            ensure!(began.elapsed() < DEADLINE, "waited {} s in vain: {what}", DEADLINE.as_secs());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// A connection to the primary.
    pub(crate) async fn primary(&self) -> Result<PgConnection> {
        self.stack.primary().connect(&self.name).await
    }

    /// A producer of the app in a region; where there is a replica, it reads there.
    pub(crate) async fn producer(&self, region: &str) -> Result<Producer> {
        let builder = Producer::builder(self.name.parse()?, region.parse()?)
            .nats_url(self.stack.nats_url(region)?);
        let builder = match self.stack.replica(region) {
            Ok(replica) => {
                replica.wait_caught_up(self.stack.primary(), DEADLINE).await?;
                builder.reads(ReadsFrom::replica(replica.url(&self.name)))
            }
            Err(_) => builder.reads(ReadsFrom::primary(self.stack.primary().url(&self.name))),
        };
        let limits = Limits::default().timeout(DEADLINE);
        Ok(builder.limits(limits).connect().await?)
    }

    /// Asks a worker over HTTP that was begun with `--metrics-addr 127.0.0.1:0`: the status line
    /// and all that follows.
    pub(crate) async fn http(&self, worker: &Program, path: &str) -> Result<String> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let log = worker.log();
        let addr =
            log.split("are served addr=").nth(1).and_then(|rest| rest.split_whitespace().next());
        let mut stream = tokio::net::TcpStream::connect(addr.context("it serves no HTTP")?).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: worker\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        tokio::time::timeout(DEADLINE, stream.read_to_string(&mut answer)).await??;
        Ok(answer)
    }

    /// Runs statements as the app's owner.
    pub(crate) async fn execute(&self, sql: &str) -> Result<()> {
        self.stack.primary().execute(&self.name, sql).await
    }
}
