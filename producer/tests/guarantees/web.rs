//! The example app over HTTP, in two regions, and a client that hops between them.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use farwrite_devstack::Devstack;
use farwrite_producer::{
    BookmarkKey, Limits, Origin, Producer, ReadsFrom,
    web::{BookmarkLayer, Late},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::OnceCell,
    task::AbortHandle,
};

use crate::stage::{Stage, Worker, within};

#[path = "../../examples/notes/app.rs"]
mod app;

const REGIONS: [&str; 2] = ["iad", "lax"];

/// A stack of its own: its replicas are held.
async fn stack() -> &'static Devstack {
    static STACK: OnceCell<Devstack> = OnceCell::const_new();
    let start = || {
        let regions = ["ewr"].into_iter().chain(REGIONS);
        Devstack::builder().regions(regions).rtt(Duration::from_millis(10)).start()
    };
    STACK.get_or_try_init(start).await.unwrap()
}

/// The app in one region; it ends with this.
struct App {
    address: String,
    serving: AbortHandle,
}

impl Drop for App {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl App {
    async fn start(layer: BookmarkLayer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let router = app::router(layer);
        let serving = tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, serving: serving.abort_handle() }
    }
}

async fn producer(stage: &Stage, region: &str, has_primary: bool) -> Producer {
    let database = stage.database.as_str();
    let url = stage.stack.replica(region).unwrap().url(database);
    let reads = ReadsFrom::replica(url);
    let reads = if has_primary {
        reads.or_primary(stage.stack.primary_url_from(region, database).unwrap())
    } else {
        reads
    };
    let builder = Producer::builder(stage.database.clone(), Origin::new(region).unwrap())
        .nats_url(stage.stack.nats_url(region).unwrap())
        .reads(reads)
        // A write that its region does not show soon is a note that the next request waits for.
        .limits(Limits::default().timeout(Duration::from_secs(2)));
    builder.connect().await.unwrap()
}

struct Answer {
    status: u16,
    headers: HashMap<String, String>,
    /// The cookies that it sets.
    set: Vec<(String, String)>,
    body: Value,
}

/// A browser: it keeps its cookies, and goes wherever it is told.
#[derive(Clone, Default)]
struct Browser {
    cookies: BTreeMap<String, String>,
}

impl Browser {
    async fn ask(&mut self, app: &App, method: &str, path: &str, body: Option<Value>) -> Answer {
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let pairs: Vec<_> =
            self.cookies.iter().map(|(name, text)| format!("{name}={text}")).collect();
        let cookie = format!("cookie: {}\r\n", pairs.join("; "));
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\n{cookie}content-type: application/json\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n{body}",
            app.address,
            body.len()
        );
        let mut connection = TcpStream::connect(&app.address).await.unwrap();
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        within(connection.read_to_string(&mut text)).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: HashMap<_, _> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let set = head.lines().filter_map(|line| line.strip_prefix("set-cookie: "));
        let set = set.filter_map(|set| set.split(';').next()?.split_once('='));
        let set = set.map(|(name, text)| (name.to_owned(), text.to_owned())).collect();
        let body = serde_json::from_str(body).unwrap_or_default();
        let answer = Answer { status, headers, set, body };
        self.keep(&answer);
        answer
    }

    /// Keeps the cookies that an answer sets.
    fn keep(&mut self, answer: &Answer) {
        for (name, text) in &answer.set {
            self.cookies.remove(name);
            if !text.is_empty() {
                self.cookies.insert(name.clone(), text.clone());
            }
        }
    }

    async fn add(&mut self, app: &App, text: &str) -> Answer {
        self.ask(app, "POST", "/alice/notes", Some(json!({ "text": text }))).await
    }

    /// Which server showed the notes, and how many there were.
    async fn list(&mut self, app: &App) -> (String, usize) {
        let answer = self.ask(app, "GET", "/alice/notes", None).await;
        assert_eq!(answer.status, 200);
        let from = answer.body["from"].as_str().unwrap().to_owned();
        (from, answer.body["notes"].as_array().unwrap().len())
    }
}

async fn prepared(name: &str) -> Stage {
    let stage = Stage::on(stack().await, name).await;
    Worker::prepare(&stage).await;
    let sql = include_str!("../../examples/notes/notes.sql");
    stage.stack.primary().execute(stage.database.as_str(), sql).await.unwrap();
    stage
}

/// One test for all that holds a replica: they are everybody's here.
#[tokio::test]
async fn a_user_who_hops_between_regions_sees_their_own_notes_always() {
    let stage = prepared("notes").await;
    let worker = Worker::of(&stage);
    let _working = worker.begin().await;
    let replicas = REGIONS.map(|region| stage.stack.replica(region).unwrap());
    let mut apps = Vec::new();
    for region in REGIONS {
        let layer = app::layer(producer(&stage, region, true).await).unwrap();
        apps.push(App::start(layer.monotonic_reads(true)).await);
    }
    let mut alice = Browser::default();
    for n in 0..20 {
        let (here, there) = (&apps[n % 2], &apps[(n + 1) % 2]);
        assert_eq!(alice.add(here, &format!("note {n}")).await.status, 201);
        assert_eq!(alice.list(there).await.1, n + 1, "in the other region");
        assert_eq!(alice.list(here).await.1, n + 1, "and back");
    }
    let empty = alice.add(&apps[0], "").await;
    assert_eq!((empty.status, &empty.body["code"]), (422, &json!("23514")));

    // One region is late: the primary serves, and another user, who saw nothing, is served here.
    replicas[1].pause_replay().await.unwrap();
    assert_eq!(alice.add(&apps[0], "late").await.status, 201);
    assert_eq!(alice.list(&apps[1]).await, ("primary".to_owned(), 21));
    assert_eq!(Browser::default().list(&apps[1]).await, ("replica".to_owned(), 20));
    // What is written where it is late is committed, and the next request waits for it.
    assert_eq!(alice.add(&apps[1], "later").await.status, 201);
    assert_eq!(alice.list(&apps[0]).await, ("replica".to_owned(), 22));

    // Without a primary to read, each policy.
    let late = async |late: Late| {
        let producer = producer(&stage, REGIONS[1], false).await;
        let layer = app::layer(producer).unwrap().late(late).budget(Duration::from_millis(50));
        App::start(layer.monotonic_reads(true)).await
    };
    let stale = late(Late::Stale).await;
    let answer = alice.ask(&stale, "GET", "/alice/notes", None).await;
    assert_eq!((answer.status, answer.headers["farwrite-stale"].as_str()), (200, "1"));
    let retry_after = Duration::from_secs(3);
    let unavailable = late(Late::Unavailable { retry_after }).await;
    let answer = alice.ask(&unavailable, "GET", "/alice/notes", None).await;
    assert_eq!((answer.status, answer.headers["retry-after"].as_str()), (503, "3"));
    let replay = late(Late::FlyReplay { region: Origin::new("ewr").unwrap() }).await;
    let answer = alice.ask(&replay, "GET", "/alice/notes", None).await;
    assert_eq!(answer.headers["fly-replay"].as_str(), "region=ewr");
    replicas[1].resume_replay().await.unwrap();
    assert_eq!(alice.list(&apps[1]).await.1, 22);

    // Reads do not go back either: who has seen a note in one region sees it in the other.
    replicas[1].pause_replay().await.unwrap();
    assert_eq!(alice.add(&apps[0], "for bob to see").await.status, 201);
    let mut bob = Browser::default();
    assert_eq!(bob.list(&apps[0]).await.1, 23);
    assert_eq!(bob.list(&apps[1]).await, ("primary".to_owned(), 23));
    replicas[1].resume_replay().await.unwrap();

    // Two tabs share their cookies. One reads, and its response comes after the other one has written.
    let mut other_tab = alice.clone();
    let read = other_tab.ask(&apps[1], "GET", "/alice/notes", None).await;
    assert_eq!(alice.add(&apps[0], "by the other tab").await.status, 201);
    let written = alice.cookies["farwrite"].clone();
    alice.keep(&read);
    assert_eq!(alice.cookies["farwrite"], written);
    assert_eq!(alice.list(&apps[1]).await.1, 24);

    // What is read late replaces nothing, also where the request came with nothing.
    replicas[1].pause_replay().await.unwrap();
    assert_eq!(alice.add(&apps[0], "read late").await.status, 201);
    let before = alice.cookies.clone();
    let answer = alice.ask(&stale, "GET", "/alice/notes", None).await;
    assert_eq!(answer.headers["farwrite-stale"].as_str(), "1");
    assert_eq!(alice.cookies, before);
    replicas[1].resume_replay().await.unwrap();

    // A cookie that nobody signed is none, and one that is garbage neither.
    let key = BookmarkKey::new(b"sixteen bytes or more").unwrap();
    let layer = app::layer(producer(&stage, REGIONS[0], true).await).unwrap().key(key);
    let signing = App::start(layer).await;
    let mut carol = alice.clone();
    assert_eq!(carol.add(&signing, "signed").await.status, 201);
    let signed = &carol.cookies["farwrite"];
    assert!(signed.contains('~') && *signed != alice.cookies["farwrite"]);
    assert_eq!(carol.list(&signing).await.1, 26);
    for cookie in ["garbage", "fw1.other.1.0192f5c08a7b7cc3b1a2c3d4e5f60718.0-1"] {
        let mut stranger = Browser::default();
        stranger.cookies.insert("farwrite".to_owned(), cookie.to_owned());
        stranger.list(&signing).await;
        stranger.list(&apps[0]).await;
    }
}
