//! The program `lsn-watcher`, and apps that wait through it over NATS.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod stage;

use std::{path::Path, process::Command, time::Duration};

use async_nats::{Client, ConnectOptions};
use farwrite_devstack::{Devstack, Program};
use farwrite_lsn_watcher::{GoneReason, NatsConfig, WaitError, Watcher};
use farwrite_schemas::{DatabaseName, Lsn, Origin, Subjects};
use futures_util::StreamExt;
use stage::{LONG, Writer, all, shows, until, wait_many};
use tokio::sync::OnceCell;

/// The primary's region and one for each test.
const REGIONS: [&str; 8] =
    ["home", "apps", "restarted", "nobody", "away", "twice", "exits", "promoted"];

async fn stack() -> &'static Devstack {
    static STACK: OnceCell<Devstack> = OnceCell::const_new();
    STACK.get_or_init(async || Devstack::builder().regions(REGIONS).start().await.unwrap()).await
}

fn subjects() -> Subjects {
    Subjects::new(DatabaseName::new("shop").unwrap())
}

/// An app's handle, on a connection of its own.
async fn app(stack: &Devstack, region: &str) -> (Watcher, Client) {
    let client = ConnectOptions::new()
        .reconnect_delay_callback(|_| Duration::from_millis(20))
        .connect(stack.nats_url(region).unwrap())
        .await
        .unwrap();
    let region = Origin::new(region).unwrap();
    let config = NatsConfig::default();
    (Watcher::over_nats(client.clone(), &subjects(), &region, config).unwrap(), client)
}

/// The program without settings, whatever this test was started with.
fn bare() -> Command {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().and_then(Path::parent).unwrap().join("farwrite");
    let why = "build it first: cargo build --workspace --bins, or make test";
    assert!(program.is_file(), "{}: {why}", program.display());
    let mut command = Command::new(program);
    command.args(["watcher", "run"]);
    for name in ["DATABASE", "REGION", "REPLICA_URL", "NATS_URL", "METRICS_ADDR", "LOG", "CONFIG"] {
        command.env_remove(format!("FARWRITE_{name}"));
    }
    command
}

fn command(stack: &Devstack, region: &str) -> Command {
    let mut command = bare();
    command
        .args(["--database", "shop", "--region", region, "--log", "debug"])
        .args(["--replica-url", &stack.replica(region).unwrap().url("postgres")])
        .args(["--nats-url", &stack.nats_url(region).unwrap()])
        .args(["--metrics-addr", "127.0.0.1:0"]);
    command
}

fn start(stack: &Devstack, region: &str) -> Program {
    stack.spawn(command(stack, region), "watcher").unwrap()
}

/// The value of one of the program's metrics.
async fn metric(program: &Program, name: &str) -> f64 {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    until("the metrics are served", || program.log().contains("addr=")).await;
    let log = program.log();
    let addr = log.split("addr=").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap();
    let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let line = answer.lines().find(|line| line.starts_with(&format!("{name} ")));
    line.unwrap_or_else(|| panic!("no {name} in {answer}"))[name.len()..].trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_apps_wait_through_the_program_and_read_what_they_wrote() {
    const WRITES: i64 = 150;
    let stack = stack().await;
    let replica = stack.replica("apps").unwrap();
    stack.replication_link("apps").unwrap().set_rtt(Duration::from_millis(30));
    let program = start(stack, "apps");
    let mut apps = tokio::task::JoinSet::new();
    for number in 0..2 {
        let (watcher, _) = app(stack, "apps").await;
        for caller in 0..4 {
            let watcher = watcher.clone();
            apps.spawn(async move {
                let table = format!("apps_{number}_{caller}");
                let mut writer = Writer::new(stack.primary(), &table).await;
                let mut reader = replica.connect("postgres").await.unwrap();
                for n in 0..WRITES {
                    let lsn = writer.write(n).await;
                    watcher.wait(lsn, LONG).await.unwrap();
                    assert!(shows(&mut reader, &table, n).await, "stale: row {n} of {table}");
                }
            });
        }
    }
    while let Some(app) = apps.join_next().await {
        app.unwrap();
    }
    // Nobody waits: when the last interest has faded nothing is polled. An interest that the
    // program heard last lasts until it is reached, and all are.
    let polls = metric(&program, "farwrite_watcher_polls_total").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(metric(&program, "farwrite_watcher_polls_total").await, polls);
}

/// What the program does is the same for one waiter and for ten thousand.
#[tokio::test]
async fn ten_thousand_waiters_of_an_app_are_one_interest() {
    let stack = stack().await;
    let _program = start(stack, "twice");
    let (watcher, client) = app(stack, "twice").await;
    let mut writer = Writer::new(stack.primary(), "many").await;
    let first = writer.write(1).await;
    watcher.wait(first, LONG).await.unwrap();
    let region = Origin::new("twice").unwrap();
    let mut heard = client.subscribe(subjects().watch(&region)).await.unwrap();
    client.flush().await.unwrap();
    let replica = stack.replica("twice").unwrap();
    replica.pause_replay().await.unwrap();
    let lsn = writer.write(2).await;
    let said = watcher.polls();
    let began = std::time::Instant::now();
    let waits = wait_many(&watcher, lsn, 10_000, LONG).await;
    let cancelled = wait_many(&watcher, lsn, 10_000, LONG).await;
    drop(cancelled);
    until("the cancelled have left", || watcher.waiters() == 10_000).await;
    let repeats = began.elapsed().as_millis() as u64 / 500;
    assert!(watcher.polls() - said <= 2 + repeats, "interests do not grow with the waiters");
    assert!(heard.next().await.is_some());
    // A second watcher for the region does no harm.
    let _second = start(stack, "twice");
    replica.resume_replay().await.unwrap();
    for result in all(waits).await {
        assert!(result.unwrap().lsn >= lsn);
    }
    assert_eq!(watcher.waiters(), 0);
    for n in 3..100 {
        let lsn = writer.write(n).await;
        watcher.wait(lsn, LONG).await.unwrap();
        let mut reader = replica.connect("postgres").await.unwrap();
        assert!(shows(&mut reader, "many", n).await);
    }
}

#[tokio::test]
async fn waiters_survive_a_program_that_is_killed_and_started_again() {
    let stack = stack().await;
    let program = start(stack, "restarted");
    let (watcher, _) = app(stack, "restarted").await;
    let mut writer = Writer::new(stack.primary(), "restarted").await;
    let first = writer.write(1).await;
    watcher.wait(first, LONG).await.unwrap();
    let replica = stack.replica("restarted").unwrap();
    replica.pause_replay().await.unwrap();
    let lsn = writer.write(2).await;
    let waits = wait_many(&watcher, lsn, 200, LONG).await;
    program.kill().await.unwrap();
    // Replayed while no watcher runs: the next one must be asked to say so.
    replica.resume_replay().await.unwrap();
    replica.wait_caught_up(stack.primary(), LONG).await.unwrap();
    assert_eq!(watcher.waiters(), 200);
    let _program = start(stack, "restarted");
    for result in all(waits).await {
        assert!(result.unwrap().lsn >= lsn);
    }
}

#[tokio::test]
async fn waiters_survive_a_restart_of_nats() {
    // A stack of its own: everybody uses NATS.
    let stack = Devstack::builder().regions(["home", "away"]).start().await.unwrap();
    let _program = start(&stack, "away");
    let (watcher, _) = app(&stack, "away").await;
    let mut writer = Writer::new(stack.primary(), "away").await;
    let first = writer.write(1).await;
    watcher.wait(first, LONG).await.unwrap();
    let replica = stack.replica("away").unwrap();
    replica.pause_replay().await.unwrap();
    let lsn = writer.write(2).await;
    let waits = wait_many(&watcher, lsn, 200, LONG).await;
    stack.nats().kill().await.unwrap();
    replica.resume_replay().await.unwrap();
    replica.wait_caught_up(stack.primary(), LONG).await.unwrap();
    let error = watcher.wait(lsn, Duration::from_millis(1_000)).await.unwrap_err();
    let WaitError::ReplicaGone { reason: GoneReason::NatsDown, .. } = error else {
        panic!("{error}")
    };
    stack.nats().start().await.unwrap();
    for result in all(waits).await {
        assert!(result.unwrap().lsn >= lsn);
    }
}

#[tokio::test]
async fn without_a_program_the_replica_counts_as_gone() {
    let stack = stack().await;
    let (watcher, _) = app(stack, "nobody").await;
    let error = watcher.wait(Lsn(1), Duration::from_millis(800)).await.unwrap_err();
    let WaitError::ReplicaGone { reason: GoneReason::Unanswered { .. }, seen, .. } = error else {
        panic!("{error}")
    };
    assert_eq!((seen.answers, seen.heard_ago), (0, None));
    // One that is started late is found by those who wait.
    let waits = wait_many(&watcher, Lsn(1), 10, LONG).await;
    let _program = start(stack, "nobody");
    all(waits).await.into_iter().for_each(|result| assert!(result.is_ok(), "{result:?}"));
}

#[tokio::test]
async fn the_program_tells_that_the_replica_is_away_and_that_it_is_back() {
    let stack = stack().await;
    let program = start(stack, "away");
    let (watcher, _) = app(stack, "away").await;
    let mut writer = Writer::new(stack.primary(), "away").await;
    let lsn = writer.write(1).await;
    let before = watcher.wait(lsn, LONG).await.unwrap();
    let replica = stack.replica("away").unwrap();
    replica.kill().await.unwrap();
    stage::outlive_the_mark().await;
    let error = watcher.wait(lsn, Duration::from_secs(3)).await.unwrap_err();
    let WaitError::ReplicaGone { reason: GoneReason::ToldByWatcher, seen, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(seen.reached, None, "a mark does not outlive its server");
    let waits = wait_many(&watcher, lsn, 10, LONG).await;
    replica.start().await.unwrap();
    for result in all(waits).await {
        assert_ne!(result.unwrap().server_start_us, before.server_start_us);
    }
    assert!(metric(&program, "farwrite_watcher_reconnects_total").await >= 1.0);
}

#[tokio::test]
async fn a_promotion_is_told_to_the_apps_and_the_program_goes_on() {
    let stack = stack().await;
    let program = start(stack, "promoted");
    let (watcher, _) = app(stack, "promoted").await;
    watcher.wait(Lsn(1), LONG).await.unwrap();
    let waits = wait_many(&watcher, Lsn(u64::MAX), 10, LONG).await;
    stack.replica("promoted").unwrap().execute("postgres", "SELECT pg_promote()").await.unwrap();
    for result in all(waits).await {
        assert!(matches!(result, Err(WaitError::NotAReplica)), "{result:?}");
    }
    let error = watcher.wait(Lsn(1), LONG).await.unwrap_err();
    assert!(matches!(error, WaitError::NotAReplica), "{error}");
    assert_eq!(program.terminate(LONG).await.unwrap().code(), Some(0), "{}", program.log());
}

#[tokio::test]
async fn a_signal_stops_it_with_0_whether_nats_is_there_or_not_and_on_a_primary_too() {
    let stack = stack().await;
    let program = start(stack, "exits");
    let (watcher, _) = app(stack, "exits").await;
    watcher.wait(Lsn(1), LONG).await.unwrap();
    assert_eq!(program.terminate(LONG).await.unwrap().code(), Some(0), "{}", program.log());

    let primary = stack.primary().url("postgres");
    let nowhere = "nats://127.0.0.1:1";
    let mut lonely = command(stack, "exits");
    lonely.env("FARWRITE_NATS_URL", nowhere);
    let args: Vec<_> = lonely.get_args().map(ToOwned::to_owned).collect();
    let mut lonely = bare();
    // The flags but for --nats-url, which comes from the environment.
    let kept = args.iter().position(|arg| arg == "--nats-url").unwrap();
    lonely.args(&args[2..kept]).args(&args[kept + 2..]).env("FARWRITE_NATS_URL", nowhere);
    let lonely = stack.spawn(lonely, "lonely").unwrap();
    until("it runs", || lonely.log().contains("watching the replica")).await;
    assert_eq!(lonely.terminate(LONG).await.unwrap().code(), Some(0), "{}", lonely.log());

    let mut on_primary = bare();
    on_primary.args(["--database=shop", "--region=exits", "--nats-url", nowhere]);
    on_primary.args(["--replica-url", &primary]);
    let primary = stack.spawn(on_primary, "primary").unwrap();
    until("it says so", || primary.log().contains("the server is a primary")).await;
    assert_eq!(primary.terminate(LONG).await.unwrap().code(), Some(0), "{}", primary.log());
}

#[tokio::test]
async fn settings_come_from_flags_the_environment_and_a_file_and_bad_ones_end_it_with_2() {
    let stack = stack().await;
    let file = stack.folder().unwrap().join("watcher.conf");
    let run = async |command: Command| {
        let program = stack.spawn(command, "settings").unwrap();
        let status = program.wait(LONG).await.unwrap();
        (status.code(), program.log())
    };
    std::fs::write(
        &file,
        "# comments are allowed\nFARWRITE_DATABASE=shop\nFARWRITE_REGION=not a region\n\
         FARWRITE_REPLICA_URL=postgres://me:secret@localhost/x\nFARWRITE_NATS_URL=nats://x:secret@h\n",
    )
    .unwrap();
    let with_file = || {
        let mut command = bare();
        command.env("FARWRITE_CONFIG", &file);
        command
    };
    let (code, log) = run(with_file()).await;
    assert!(code == Some(2) && log.contains("--region (FARWRITE_REGION)"), "{log}");
    let mut command = with_file();
    command.env("FARWRITE_REGION", "here").env("FARWRITE_DATABASE", "not valid");
    let (code, log) = run(command).await;
    assert!(code == Some(2) && log.contains("--database"), "the environment wins: {log}");
    let mut command = with_file();
    command.env("FARWRITE_REGION", "here").args(["--nats-url", "nats://x:secret@h:port"]);
    let (code, log) = run(command).await;
    assert!(code == Some(2) && log.contains("--nats-url"), "flags win: {log}");
    assert!(!log.contains("secret"), "{log}");
    let mut command = with_file();
    command.arg("--help");
    let (code, log) = run(command).await;
    assert!(code == Some(0) && log.contains("Exit status"), "{log}");
    assert!(!log.contains("secret"), "{log}");

    std::fs::write(&file, "\nFARWRITE_REGIO=secret\n").unwrap();
    let (code, log) = run(with_file()).await;
    let expected = format!("{}, line 2: \"FARWRITE_REGIO\" is not a setting", file.display());
    assert!(code == Some(2) && log.contains(&expected) && !log.contains("secret"), "{log}");
}
