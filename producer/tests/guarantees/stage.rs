//! What the tests share: the stack, streams, producers, and stand-ins for the other side.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use async_nats::{
    Client, Message, Subscriber,
    jetstream::{
        self,
        stream::{Config, DiscardPolicy, StorageType, Stream},
    },
};
use farwrite_devstack::{Devstack, Postgres, Program};
use farwrite_producer::{
    Bookmark, Builder, CommandId, DatabaseName, Key, Limits, Origin, Outcome, Producer, RawCommand,
    ReadsFrom, Reply,
};
use farwrite_schemas::{Epoch, Lsn, Subjects, Timeline, headers, sql};
use futures_util::{FutureExt, StreamExt};
use serde_json::value::RawValue;
use tokio::sync::OnceCell;

/// A deadline that only a fault reaches.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// The region of every producer here.
pub(crate) const REGION: &str = "jfk";

/// A region whose replica is held back by one test.
pub(crate) const BEHIND: &str = "lga";

/// Two regions whose replicas are held back by another.
pub(crate) const HOPS: [&str; 2] = ["ord", "sea"];

/// `jailed` may do what a region's credentials need and nothing else: one command, the outcome
/// service and its own replies. `deaf` may not even listen.
const NATS: &str = r#"
max_payload: 200000
authorization { users: [
    { user: app, password: app }
    { user: jailed, password: jailed, permissions: {
        publish: ["farwrite.*.cmd.jfk.allowed", "farwrite.*.outcome"]
        subscribe: ["farwrite.*.reply.jfk.>"] } }
    { user: deaf, password: deaf, permissions: { publish: [">"], subscribe: ["nothing"] } }
] }
no_auth_user: app
"#;

/// The stack of all tests.
pub(crate) async fn stack() -> &'static Devstack {
    static STACK: OnceCell<Devstack> = OnceCell::const_new();
    let start = || {
        let regions = ["ewr", REGION, BEHIND].into_iter().chain(HOPS);
        Devstack::builder().regions(regions).nats_config(NATS).start()
    };
    STACK.get_or_try_init(start).await.unwrap()
}

/// One test's own database name, with a client for the other side.
pub(crate) struct Stage {
    pub(crate) stack: &'static Devstack,
    pub(crate) client: Client,
    pub(crate) database: DatabaseName,
    pub(crate) subjects: Subjects,
}

impl Stage {
    pub(crate) async fn new(name: &str) -> Self {
        Self::on(stack().await, name).await
    }

    /// The same on another stack.
    pub(crate) async fn on(stack: &'static Devstack, name: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let client = async_nats::connect(stack.nats().url()).await.unwrap();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let database = DatabaseName::new(format!("{name}-{number}")).unwrap();
        let subjects = Subjects::new(database.clone());
        Self { stack, client, database, subjects }
    }

    /// The stream of this test's commands, as the contract wants it.
    pub(crate) async fn stream(&self) -> Stream {
        self.stream_with(Config::default()).await
    }

    pub(crate) async fn stream_with(&self, config: Config) -> Stream {
        let config = Config {
            name: self.database.to_string(),
            subjects: vec![self.subjects.all_commands()],
            discard: DiscardPolicy::New,
            storage: StorageType::File,
            ..config
        };
        jetstream::new(self.client.clone()).create_stream(config).await.unwrap()
    }

    pub(crate) fn builder(&self) -> Builder {
        Producer::builder(self.database.clone(), Origin::new(REGION).unwrap())
            .nats_url(self.stack.nats().url())
    }

    /// A producer that gives up on a silent attempt fast.
    pub(crate) fn hasty(&self) -> Builder {
        let limits = Limits::default().ack_timeout(Duration::from_millis(300));
        self.builder().limits(limits)
    }

    pub(crate) async fn producer(&self) -> Producer {
        self.builder().connect().await.unwrap()
    }

    /// A URL of NATS with credentials.
    pub(crate) fn url_as(&self, user: &str) -> String {
        format!("nats://{user}:{user}@{}", self.stack.nats().addr())
    }

    /// Takes the place of the stream: what is published is heard, and answered by the test.
    pub(crate) async fn broker(&self) -> Broker {
        let commands = self.client.subscribe(self.subjects.all_commands()).await.unwrap();
        let broker = Broker { client: self.client.clone(), commands };
        settle(&self.client).await;
        broker
    }

    /// The inbox of the outcome service.
    pub(crate) async fn questions(&self) -> Subscriber {
        let questions = self.client.subscribe(self.subjects.outcome()).await.unwrap();
        settle(&self.client).await;
        questions
    }

    /// A reply of the worker.
    pub(crate) fn applied(&self, id: CommandId, output: &str, lsn: Lsn) -> Reply {
        let output = RawValue::from_string(output.to_owned()).unwrap();
        Reply {
            id,
            outcome: Outcome::Applied { output },
            bookmark: self.bookmark(lsn),
            record: None,
        }
    }

    pub(crate) fn bookmark(&self, lsn: Lsn) -> Bookmark {
        Bookmark {
            database: self.database.clone(),
            timeline: Timeline(1),
            epoch: Epoch(CommandId::derived("epoch", "1").uuid()),
            lsn,
        }
    }

    /// A database of its own, with the history that [`Self::bookmark`] names, as a takeover would
    /// have written it.
    pub(crate) async fn database_with_history(&self) -> &str {
        self.prepare_history(self.stack.primary()).await
    }

    /// The same on a primary of another stack.
    pub(crate) async fn prepare_history(&self, primary: &Postgres) -> &str {
        let database = self.database.as_str();
        primary.create_database(database).await.unwrap();
        let mut text = format!("SET check_function_bodies = off; CREATE SCHEMA {};", sql::SCHEMA);
        text.extend(sql::TABLES.iter().map(|step| step.text));
        let epoch = self.bookmark(Lsn::default()).epoch;
        text += &sql::functions_text();
        text += &format!(
            "INSERT INTO farwrite.owner (database_name, epoch, worker, taken_at, released_at, identity)
             SELECT '{database}', '{epoch}', 'nobody', now(), now(), farwrite.home() || '/one';
             SELECT farwrite.begin_epoch('{epoch}', NULL, NULL, 1)"
        );
        primary.execute(database, &text).await.unwrap();
        database
    }

    /// Sends a reply to the inbox that a command names, as the worker does.
    pub(crate) async fn reply(&self, command: &Message, reply: &Reply) {
        let inbox = header(command, headers::REPLY).unwrap();
        self.client.publish(inbox, reply.encode().unwrap().into()).await.unwrap();
    }
}

/// The app of a test with a real worker: what it applies leaves a row with its time.
const APP: &str = "
    CREATE TABLE seen (place serial, n integer, context text, at timestamptz NOT NULL DEFAULT clock_timestamp());
    CREATE FUNCTION see(body jsonb) RETURNS integer LANGUAGE sql AS
        $$ INSERT INTO seen (n, context) VALUES ((body->>'n')::integer, current_setting('farwrite.context', true))
           RETURNING place $$;
    CREATE FUNCTION bulk(body jsonb) RETURNS text LANGUAGE sql AS
        $$ SELECT repeat('x', (body->>'bytes')::integer) $$;
    CREATE FUNCTION nap(body jsonb) RETURNS void LANGUAGE sql AS
        $$ SELECT pg_sleep((body->>'seconds')::float8) $$;
    SELECT farwrite.register('see', 'see(jsonb)'), farwrite.register('bulk', 'bulk(jsonb)'),
           farwrite.register('nap', 'nap(jsonb)');";

/// A database with its stream, and the program that works on it.
pub(crate) struct Worker<'a> {
    stage: &'a Stage,
}

impl<'a> Worker<'a> {
    /// The one of a stage that is prepared.
    pub(crate) const fn of(stage: &'a Stage) -> Self {
        Self { stage }
    }

    /// Prepares everything; nobody works yet.
    pub(crate) async fn prepare(stage: &'a Stage) -> Self {
        let worker = Self::of(stage);
        let primary = stage.stack.primary();
        primary.create_database(worker.database()).await.unwrap();
        let migrated = worker.spawn("migrate");
        let status = migrated.wait(LONG).await.unwrap();
        assert!(status.success(), "migrate: {status}\n{}", migrated.log_tail());
        primary.execute(worker.database(), APP).await.unwrap();
        worker
    }

    /// The database's name.
    pub(crate) fn database(&self) -> &str {
        self.stage.database.as_str()
    }

    /// Begins to work.
    pub(crate) async fn begin(&self) -> Program {
        let program = self.spawn("run");
        until("the worker serves", || program.log().contains(" serving epoch=")).await;
        program
    }

    /// What is to be read on the primary.
    pub(crate) fn primary_url(&self) -> String {
        self.stage.stack.primary().url(self.database())
    }

    /// What is to be read on the region's replica.
    pub(crate) fn replica_url(&self) -> String {
        self.stage.stack.replica(REGION).unwrap().url(self.database())
    }

    /// A producer that reads the region's replica, once that has the database.
    pub(crate) async fn reader(&self) -> Producer {
        self.reader_of(self.stage.builder()).await
    }

    /// The same from a builder of the test's.
    pub(crate) async fn reader_of(&self, builder: Builder) -> Producer {
        let Stage { stack, .. } = self.stage;
        let replica = stack.replica(REGION).unwrap();
        replica.wait_caught_up(stack.primary(), LONG).await.unwrap();
        builder.reads(ReadsFrom::replica(self.replica_url())).connect().await.unwrap()
    }

    fn spawn(&self, subcommand: &str) -> Program {
        let Stage { stack, .. } = self.stage;
        let mut command = Command::new(farwrite());
        command
            .env_clear()
            .args(["worker", subcommand])
            .env("FARWRITE_DATABASE", self.database())
            .env("FARWRITE_DATABASE_URL", self.primary_url())
            .env("FARWRITE_NATS_URL", stack.nats().url())
            .env("FARWRITE_LANES", "2")
            .env("FARWRITE_CONTEXT_ALLOW", "tenant")
            // JetStream sets a new stream's whole size aside, and there are many here.
            .env("FARWRITE_STREAM_MAX_BYTES", "67108864");
        stack.spawn(command, &format!("worker-{}", self.database())).unwrap()
    }
}

/// The program, built beside this test.
pub(crate) fn farwrite() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().and_then(Path::parent).unwrap().join("farwrite");
    let why = "build it first: cargo build --workspace --bins, or make test";
    assert!(program.is_file(), "{}: {why}", program.display());
    program
}

/// Returns when the server has taken everything that the client sent before.
pub(crate) async fn settle(client: &Client) {
    let inbox = client.new_inbox();
    let mut echo = client.subscribe(inbox.clone()).await.unwrap();
    client.publish(inbox, "".into()).await.unwrap();
    echo.next().await.unwrap();
}

/// A stand-in for the stream.
pub(crate) struct Broker {
    client: Client,
    commands: Subscriber,
}

impl Broker {
    /// The next command that is published.
    pub(crate) async fn next(&mut self) -> Message {
        within(self.commands.next()).await.unwrap()
    }

    /// Whether nothing waits to be read.
    pub(crate) fn heard_nothing(&mut self) -> bool {
        self.commands.next().now_or_never().is_none()
    }

    /// Acknowledges what comes, for ever.
    pub(crate) async fn store_all(&mut self) {
        while let Some(command) = self.commands.next().await {
            self.store(&command, 1).await;
        }
    }

    /// Acknowledges a command.
    pub(crate) async fn store(&self, command: &Message, sequence: u64) {
        self.answer(command, format!("{{\"stream\":\"S\",\"seq\":{sequence}}}")).await;
    }

    /// Acknowledges a command as one whose id was stored before.
    pub(crate) async fn store_duplicate(&self, command: &Message, sequence: u64) {
        let answer = format!("{{\"stream\":\"S\",\"seq\":{sequence},\"duplicate\":true}}");
        self.answer(command, answer).await;
    }

    pub(crate) async fn answer(&self, command: &Message, answer: String) {
        let inbox = command.reply.clone().unwrap();
        self.client.publish(inbox, answer.into()).await.unwrap();
    }
}

/// A header of a message.
pub(crate) fn header(message: &Message, name: &str) -> Option<String> {
    Some(message.headers.as_ref()?.get(name)?.as_str().to_owned())
}

/// The command id that a message carries.
pub(crate) fn id_of(message: &Message) -> CommandId {
    header(message, headers::COMMAND_ID).unwrap().parse().unwrap()
}

/// A command without a type.
pub(crate) fn raw(name: &str, key: Option<&str>, body: &str) -> RawCommand {
    let command = RawCommand::new(name, RawValue::from_string(body.to_owned()).unwrap());
    match key {
        Some(key) => command.key(Key::new(key).unwrap()),
        None => command,
    }
}

/// Fails where a fault would hang.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future).await.expect("nothing happened for a minute")
}

/// Looks until something is so.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let looking = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(LONG, looking).await.unwrap_or_else(|_| panic!("not so: {what}"));
}
