//! What every test needs: the shared stack, a database and a stream of its own, the worker
//! program, publishing, and the model that the database is compared with.

use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use async_nats::{HeaderMap, jetstream, jetstream::publish::PublishAck};
use farwrite_devstack::{Devstack, Program};
use farwrite_producer::{Limits, Producer};
use farwrite_schemas::{
    Command as Typed, CommandId, Key, KeyError, NatsServers, OutcomeAnswer, Reply, headers,
};
use futures_util::StreamExt;
use serde_json::{Value, json};
use sqlx::PgConnection;
use tokio::sync::OnceCell;

/// How long anything may take that must happen: far more than it takes on a slow machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

static STACK: OnceCell<Devstack> = OnceCell::const_new();

/// The shared servers: a primary in `ewr`, a replica in `jfk`, 30 ms away. The reaper ends them
/// with this process.
pub(crate) async fn stack() -> Result<&'static Devstack> {
    STACK
        .get_or_try_init(|| async {
            let rtt = Duration::from_millis(30);
            Devstack::builder()
                .regions(["ewr", "jfk"])
                .rtt(rtt)
                .setting("max_connections", "400")
                .start()
                .await
        })
        .await
}

/// The app's side of a test: every applied command leaves a row, in the order of its key, and
/// nothing in the tables would keep a second effect from being seen.
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

/// A program of this workspace, built beside this test.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let folder = test.parent().and_then(|deps| deps.parent()).context("the test lies nowhere")?;
    let program = folder.join(name);
    ensure!(
        program.is_file(),
        "{} is not built: run `cargo build --workspace --bins` first, or `make test`",
        program.display()
    );
    Ok(program)
}

impl Case {
    /// Prepares everything with `primary-worker migrate`; `migrate` are more flags for it.
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

    /// A subcommand of the worker program for this case.
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
        let mut command = Command::new(program("primary-worker")?);
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
        let mut command = Command::new(program("lsn-watcher")?);
        command.args(["run", "--database", &self.name, "--region", region]);
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
                builder.replica(replica.url(&self.name))
            }
            Err(_) => builder.primary_reads(self.stack.primary().url(&self.name)),
        };
        let limits = Limits { timeout: DEADLINE, ..Limits::default() };
        Ok(builder.limits(limits).connect().await?)
    }

    /// Where command `name` of origin `jfk` is published.
    pub(crate) fn subject(&self, name: &str) -> String {
        format!("farwrite.{}.cmd.jfk.{name}", self.name)
    }

    /// Publishes once, whatever comes of it.
    pub(crate) async fn publish(&self, message: &Message) -> Result<PublishAck> {
        let ack = self.context.publish_with_headers(
            self.subject(&message.name),
            message.headers()?,
            message.body.clone().into(),
        );
        Ok(ack.await?.await?)
    }

    /// Publishes the same id again until the broker stores it a second time: until its duplicate
    /// window has passed. Answers how often it was suppressed.
    pub(crate) async fn publish_past_window(&self, message: &Message) -> Result<u32> {
        let mut suppressed = 0;
        self.until("the broker's duplicate window passes", async || {
            let stored = !self.publish(message).await?.duplicate;
            suppressed += u32::from(!stored);
            Ok(stored)
        })
        .await?;
        Ok(suppressed)
    }

    /// Asks the outcome service; `None` while it knows nothing, or is not there.
    pub(crate) async fn outcome(&self, id: CommandId) -> Result<Option<Reply>> {
        let question = serde_json::to_vec(&json!({ "id": id }))?;
        let answer =
            self.client.request(format!("farwrite.{}.outcome", self.name), question.into());
        let Ok(Ok(answer)) = tokio::time::timeout(Duration::from_secs(2), answer).await else {
            return Ok(None);
        };
        match OutcomeAnswer::decode(&answer.payload)? {
            OutcomeAnswer::Known(reply) => Ok(Some(reply)),
            OutcomeAnswer::Pending(_) => Ok(None),
        }
    }

    /// Waits until every command of the stream has ended.
    pub(crate) async fn settled(&self) -> Result<()> {
        let mut stream = self.context.get_stream(format!("farwrite-{}", self.name)).await?;
        let last = stream.info().await?.state.last_sequence.cast_signed();
        let mut connection = self.primary().await?;
        self.until("every lane has passed the stream's end, and nothing is parked", async || {
            // One statement: there are no lanes before the first takeover.
            let passed: Option<bool> = sqlx::query_scalar(
                "SELECT bool_and(sequence >= $1 AND parked = 0) FROM farwrite.lanes",
            )
            .bind(last)
            .fetch_one(&mut connection)
            .await?;
            Ok(passed == Some(true))
        })
        .await
    }

    /// What the stream's order says the effects must be, by key: the first message of each id that
    /// is not refused.
    pub(crate) async fn model(&self) -> Result<BTreeMap<String, Vec<i32>>> {
        let mut stream = self.context.get_stream(format!("farwrite-{}", self.name)).await?;
        let messages = stream.info().await?.state.messages;
        let config = jetstream::consumer::pull::OrderedConfig::default();
        let mut reading = stream.create_consumer(config).await?.messages().await?;
        let (mut model, mut seen) = (BTreeMap::<String, Vec<i32>>::new(), HashSet::new());
        for _ in 0..messages {
            let message = tokio::time::timeout(DEADLINE, reading.next())
                .await?
                .context("the stream ended")??;
            let header = |name| {
                message
                    .headers
                    .as_ref()
                    .and_then(|headers| headers.get(name))
                    .map(|value| value.as_str().to_owned())
            };
            let id = header(headers::COMMAND_ID).context("no id")?;
            let body: Value = serde_json::from_slice(&message.payload).unwrap_or_default();
            let applies = message.subject.ends_with("app.append")
                && body.get("refuse").is_none()
                && body.get("n").is_some();
            if seen.insert(id.clone()) && applies {
                let n = body["n"].as_i64().context("no n")?;
                model
                    .entry(header(headers::KEY).unwrap_or(id))
                    .or_default()
                    .push(i32::try_from(n)?);
            }
        }
        Ok(model)
    }

    /// What the database's own rows say.
    pub(crate) async fn effects(&self) -> Result<BTreeMap<String, Vec<i32>>> {
        let mut connection = self.primary().await?;
        let rows: Vec<(String, Vec<i32>)> =
            sqlx::query_as("SELECT key, array_agg(n ORDER BY place) FROM app.effects GROUP BY key")
                .fetch_all(&mut connection)
                .await?;
        Ok(rows.into_iter().collect())
    }

    /// Compares the database with the model.
    pub(crate) async fn check_model(&self) -> Result<()> {
        self.settled().await?;
        let (model, effects) = (self.model().await?, self.effects().await?);
        for (key, expected) in &model {
            let found = effects.get(key).map_or(&[][..], Vec::as_slice);
            ensure!(
                found == expected,
                "key {key}: the stream says {expected:?}, the database {found:?}"
            );
        }
        if let Some(key) = effects.keys().find(|key| !model.contains_key(*key)) {
            bail!("key {key}: the database has {:?}, the stream nothing", effects[key]);
        }
        Ok(())
    }

    /// Runs statements as the app's owner.
    pub(crate) async fn execute(&self, sql: &str) -> Result<()> {
        self.stack.primary().execute(&self.name, sql).await
    }

    /// Waits until so many commands are parked for this reason.
    pub(crate) async fn parked(&self, reason: &str, commands: i64) -> Result<()> {
        let mut connection = self.primary().await?;
        self.until(&format!("{commands} are parked as {reason}"), async || {
            let parked: i64 =
                sqlx::query_scalar("SELECT count(*) FROM farwrite.parked WHERE reason = $1")
                    .bind(reason)
                    .fetch_one(&mut connection)
                    .await?;
            Ok(parked == commands)
        })
        .await
    }

    /// Waits until an effect is there: `n` in the key's list.
    pub(crate) async fn applied(&self, key: &str, n: i32) -> Result<()> {
        self.until(&format!("{n} of key {key} is applied"), async || {
            Ok(self.effects().await?.get(key).is_some_and(|effects| effects.contains(&n)))
        })
        .await
    }

    /// The outcome of a command that has ended: its word, and the code of a rejection or the
    /// reason of a dead letter.
    pub(crate) async fn ended(&self, id: CommandId) -> Result<(String, String)> {
        let mut connection = self.primary().await?;
        let mut ended = None;
        self.until(&format!("{id} has ended"), async || {
            ended = sqlx::query_as(
                "SELECT status, coalesce(answer->>'code', answer->>'reason', '')
                 FROM farwrite.outcome_of($1) WHERE status <> 'parked'",
            )
            .bind(id.uuid())
            .fetch_optional(&mut connection)
            .await?;
            Ok(ended.is_some())
        })
        .await?;
        ended.context("no outcome")
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

    /// A count in the database.
    pub(crate) async fn count(&self, sql: &'static str) -> Result<i64> {
        Ok(sqlx::query_scalar(sql).fetch_one(&mut self.primary().await?).await?)
    }
}

/// How a program ended, and what it wrote.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// An error unless it ended with this status.
    pub(crate) fn ended(self, code: i32) -> Result<Self> {
        ensure!(self.code == Some(code), "not status {code}: {self:?}");
        Ok(self)
    }

    /// Its output, one JSON object a line.
    pub(crate) fn objects(&self) -> Result<Vec<Value>> {
        self.out.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }
}

/// `app.append` as an app's code has it.
#[derive(serde::Serialize)]
pub(crate) struct Append {
    #[serde(skip)]
    pub(crate) key: String,
    pub(crate) n: i32,
}

/// What it answers.
#[derive(Debug, PartialEq, Eq, serde::Deserialize)]
pub(crate) struct Appended {
    /// Its place among the key's effects, from 1.
    pub(crate) place: i32,
}

impl Typed for Append {
    const NAME: &'static str = "app.append";
    type Output = Appended;
    fn key(&self) -> Result<Option<Key>, KeyError> {
        Key::new(&self.key).map(Some)
    }
}

/// A command to publish.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) id: CommandId,
    pub(crate) key: Option<String>,
    pub(crate) name: String,
    pub(crate) body: String,
    pub(crate) reply: Option<String>,
    /// More headers.
    pub(crate) headers: Vec<(&'static str, String)>,
}

impl Message {
    /// `app.append` of a number to a key.
    pub(crate) fn append(key: &str, n: i32) -> Self {
        Self {
            id: CommandId::now(),
            key: Some(key.to_owned()),
            name: "app.append".to_owned(),
            body: json!({ "n": n }).to_string(),
            reply: None,
            headers: Vec::new(),
        }
    }

    /// The same under another command name.
    pub(crate) fn named(self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self }
    }

    /// The same with a header that names a time so long from now; negative for the past.
    pub(crate) fn at(mut self, header: &'static str, from_now_ms: i64) -> Self {
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let at_ms = i64::try_from(now.as_millis()).unwrap_or(0) + from_now_ms;
        self.headers.push((header, at_ms.to_string()));
        self
    }

    /// The same, refused by the function.
    pub(crate) fn refused(key: &str, n: i32) -> Self {
        Self { body: json!({ "n": n, "refuse": "by test" }).to_string(), ..Self::append(key, n) }
    }

    fn headers(&self) -> Result<HeaderMap> {
        let mut headers = HeaderMap::new();
        headers.insert(headers::COMMAND_ID, self.id.to_string());
        if let Some(key) = &self.key {
            headers.insert(headers::KEY, key.as_str());
        }
        if let Some(reply) = &self.reply {
            headers.insert(headers::REPLY, reply.as_str());
        }
        for (name, value) in &self.headers {
            headers.insert(*name, value.as_str());
        }
        Ok(headers)
    }
}
