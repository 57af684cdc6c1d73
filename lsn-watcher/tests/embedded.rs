//! The embedded watcher against real replicas. Each test has a replica of its own on one stack.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod stage;

use std::time::Duration;

use farwrite_devstack::{Devstack, Postgres};
use farwrite_lsn_watcher::{EmbeddedConfig, GoneReason, WaitError, Watcher};
use farwrite_schemas::Lsn;
use stage::{LONG, Writer, all, flush_lsn, shows, until, wait_many};
use tokio::sync::OnceCell;

/// The primary's region and a replica for each test.
const REGIONS: [&str; 12] = [
    "home", "far", "idle", "fast", "kill", "crash", "paused", "stopped", "hung", "ending",
    "conflict", "polled",
];

async fn stack() -> &'static Devstack {
    static STACK: OnceCell<Devstack> = OnceCell::const_new();
    STACK.get_or_init(async || Devstack::builder().regions(REGIONS).start().await.unwrap()).await
}

fn watch(server: &Postgres) -> Watcher {
    Watcher::embedded(EmbeddedConfig::new(server.url("postgres"))).unwrap()
}

async fn backend(replica: &Postgres) -> String {
    let mut connection = replica.connect("postgres").await.unwrap();
    let pid: i32 = sqlx::query_scalar(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'farwrite watcher'",
    )
    .fetch_one(&mut connection)
    .await
    .unwrap();
    pid.to_string()
}

fn signal(signal: &str, pid: &str) {
    let status = std::process::Command::new("kill").args([signal, pid]).status().unwrap();
    assert!(status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_is_on_the_replica_30_ms_away_when_the_wait_for_it_ends() {
    const WRITERS: i64 = 8;
    const WRITES: i64 = 150;
    let stack = stack().await;
    let replica = stack.replica("far").unwrap();
    stack.replication_link("far").unwrap().set_rtt(Duration::from_millis(30));
    let watcher = watch(replica);
    let mut apps = tokio::task::JoinSet::new();
    for app in 0..WRITERS {
        let watcher = watcher.clone();
        apps.spawn(async move {
            let table = format!("far_{app}");
            let mut writer = Writer::new(stack.primary(), &table).await;
            let mut reader = replica.connect("postgres").await.unwrap();
            for n in 0..WRITES {
                let lsn = writer.write(n).await;
                watcher.wait(lsn, LONG).await.unwrap();
                assert!(shows(&mut reader, &table, n).await, "stale: row {n} of {table}");
            }
        });
    }
    while let Some(app) = apps.join_next().await {
        app.unwrap();
    }
    assert_eq!(watcher.waiters(), 0);
}

#[tokio::test]
async fn nothing_is_polled_while_nobody_waits() {
    let stack = stack().await;
    let watcher = watch(stack.replica("idle").unwrap());
    let mut writer = Writer::new(stack.primary(), "idle").await;
    let lsn = writer.write(1).await;
    watcher.wait(lsn, LONG).await.unwrap();
    // One that is given up must not keep the loop going either.
    let given_up = watcher.wait(Lsn(u64::MAX), Duration::from_millis(20)).await;
    assert!(matches!(given_up, Err(WaitError::TimedOut { .. })));
    let polls = watcher.polls();
    // Not a synchronisation: the time in which polls that should not be would be seen.
    tokio::time::sleep(Duration::from_millis(300)).await;
    // A poll that was under way when the last caller left may have been counted; no other.
    assert!(watcher.polls() <= polls + 1, "{} polls of nobody's", watcher.polls() - polls);
    watcher.wait(lsn, LONG).await.unwrap();
    assert!(watcher.polls() > polls, "a stale mark answers nobody");
}

#[derive(Clone, Copy, PartialEq)]
enum Restart {
    InOrder,
    Killed,
    BackendCrashed,
}

/// Callers wait for a write that cannot reach the replica, which is restarted meanwhile.
async fn survive(region: &'static str, restart: Restart) {
    let stack = stack().await;
    let replica = stack.replica(region).unwrap();
    let link = stack.replication_link(region).unwrap();
    let watcher = watch(replica);
    let mut writer = Writer::new(stack.primary(), region).await;
    let first = writer.write(1).await;
    let before = watcher.wait(first, LONG).await.unwrap();

    link.cut();
    let lsn = writer.write(2).await;
    let waits = wait_many(&watcher, lsn, 200, LONG).await;
    match restart {
        Restart::InOrder => {
            // Its WAL receiver ends only when its connection does.
            replica.restart().await.unwrap();
        }
        Restart::Killed => {
            replica.kill().await.unwrap();
            until("the loss is noticed", || watcher.reached().is_none()).await;
            replica.start().await.unwrap();
        }
        Restart::BackendCrashed => {
            signal("-KILL", &backend(replica).await);
            until("the loss is noticed", || watcher.reached().is_none()).await;
        }
    }
    assert_eq!(watcher.waiters(), 200, "nobody was sent away");
    link.heal();
    link.drop_connections();
    for result in all(waits).await {
        let reached = result.unwrap();
        assert!(reached.lsn >= lsn);
        let is_same_start = reached.server_start_us == before.server_start_us;
        assert_eq!(is_same_start, restart == Restart::BackendCrashed);
    }
    let mut reader = replica.connect("postgres").await.unwrap();
    assert!(shows(&mut reader, region, 2).await);
    assert_eq!(watcher.waiters(), 0);
}

#[tokio::test]
async fn waiters_survive_a_restart_of_the_replica() {
    survive("fast", Restart::InOrder).await;
}

#[tokio::test]
async fn waiters_survive_a_replica_that_is_killed() {
    survive("kill", Restart::Killed).await;
}

/// All sessions end and recovery starts over, but the postmaster and its start time stay.
#[tokio::test]
async fn waiters_survive_a_crash_that_keeps_the_servers_start_time() {
    survive("crash", Restart::BackendCrashed).await;
}

#[tokio::test]
async fn a_replica_that_does_not_replay_times_out_with_what_was_seen() {
    let stack = stack().await;
    let replica = stack.replica("paused").unwrap();
    let watcher = watch(replica);
    let mut writer = Writer::new(stack.primary(), "paused").await;
    let first = writer.write(1).await;
    watcher.wait(first, LONG).await.unwrap();
    replica.pause_replay().await.unwrap();
    let lsn = writer.write(2).await;
    let error = watcher.wait(lsn, Duration::from_millis(300)).await.unwrap_err();
    let WaitError::TimedOut { target, seen } = error else { panic!("{error}") };
    let reached = seen.reached.unwrap();
    assert!(target == lsn && first <= reached && reached < lsn, "{seen}");
    assert_eq!(seen.missing_bytes, Some(lsn.bytes_since(reached)));
    assert!(seen.answers > 0 && seen.heard_ago.is_some(), "{seen}");
    let waits = wait_many(&watcher, lsn, 10, LONG).await;
    replica.resume_replay().await.unwrap();
    all(waits).await.into_iter().for_each(|result| assert!(result.unwrap().lsn >= lsn));
}

#[tokio::test]
async fn a_replica_that_is_stopped_is_gone_and_found_again() {
    let stack = stack().await;
    let replica = stack.replica("stopped").unwrap();
    let watcher = watch(replica);
    let mut writer = Writer::new(stack.primary(), "stopped").await;
    let lsn = writer.write(1).await;
    watcher.wait(lsn, LONG).await.unwrap();
    replica.stop_fast().await.unwrap();
    stage::outlive_the_mark().await;
    let error = watcher.wait(lsn, Duration::from_secs(1)).await.unwrap_err();
    let WaitError::ReplicaGone { reason: GoneReason::Connection(_), seen, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(seen.reached, None, "a mark does not outlive its server");
    // A watcher that is made while the replica is away finds it later too.
    let born_early = watch(replica);
    replica.start().await.unwrap();
    watcher.wait(lsn, LONG).await.unwrap();
    born_early.wait(lsn, LONG).await.unwrap();
}

#[tokio::test]
async fn a_connection_that_hangs_is_replaced_and_one_that_cannot_be_is_told_apart() {
    let stack = stack().await;
    let replica = stack.replica("hung").unwrap();
    let watcher = watch(replica);
    let mut writer = Writer::new(stack.primary(), "hung").await;
    let lsn = writer.write(1).await;
    watcher.wait(lsn, LONG).await.unwrap();
    let backend = backend(replica).await;
    signal("-STOP", &backend);
    // Then the hanging connection must be asked, given up and replaced.
    stage::outlive_the_mark().await;
    watcher.wait(lsn, LONG).await.unwrap();
    signal("-CONT", &backend);

    // The whole server hangs: the kernel accepts the connection, and nobody answers.
    let postmaster = replica.program().unwrap();
    postmaster.suspend().unwrap();
    let config =
        EmbeddedConfig::new(replica.url("postgres")).connect_timeout(Duration::from_millis(100));
    let late = Watcher::embedded(config).unwrap();
    let error = late.wait(lsn, Duration::from_secs(1)).await.unwrap_err();
    let WaitError::ReplicaGone { reason: GoneReason::Hung { .. }, .. } = error else {
        panic!("{error}")
    };
    postmaster.resume().unwrap();
    late.wait(lsn, LONG).await.unwrap();
}

/// Recovery ends any session that stands in its way: here one in a database that is dropped.
#[tokio::test]
async fn a_conflict_with_recovery_ends_the_connection_and_no_wait() {
    let stack = stack().await;
    let (primary, replica) = (stack.primary(), stack.replica("conflict").unwrap());
    primary.create_database("conflict").await.unwrap();
    replica.wait_caught_up(primary, LONG).await.unwrap();
    let watcher = Watcher::embedded(EmbeddedConfig::new(replica.url("conflict"))).unwrap();
    watcher.wait(Lsn(1), LONG).await.unwrap();
    let waits = wait_many(&watcher, Lsn(u64::MAX), 10, LONG).await;
    primary.execute("postgres", "DROP DATABASE conflict").await.unwrap();
    replica.wait_caught_up(primary, LONG).await.unwrap();
    let error = watcher.wait(Lsn(u64::MAX), Duration::from_millis(500)).await.unwrap_err();
    let WaitError::ReplicaGone { reason: GoneReason::Connection(_), .. } = error else {
        panic!("{error}")
    };
    assert_eq!(watcher.waiters(), 10, "nobody was sent away");
    primary.create_database("conflict").await.unwrap();
    let mut connection = primary.connect("postgres").await.unwrap();
    let lsn = flush_lsn(&mut connection).await;
    watcher.wait(lsn, LONG).await.unwrap();
    drop(waits);
}

#[tokio::test]
async fn a_primary_is_told_at_once() {
    let stack = stack().await;
    let watcher = watch(stack.primary());
    let error = watcher.wait(Lsn(1), LONG).await.unwrap_err();
    assert!(matches!(error, WaitError::NotAReplica), "{error}");
}

#[tokio::test]
async fn a_promotion_ends_the_waits_at_once() {
    // A stack of its own: promotion leaves no replica.
    let stack = Devstack::builder().regions(["home", "away"]).start().await.unwrap();
    let replica = stack.replica("away").unwrap();
    let watcher = watch(replica);
    let waits = wait_many(&watcher, Lsn(u64::MAX), 10, LONG).await;
    replica.execute("postgres", "SELECT pg_promote()").await.unwrap();
    for result in all(waits).await {
        assert!(matches!(result, Err(WaitError::NotAReplica)), "{result:?}");
    }
    let error = watcher.wait(Lsn(1), LONG).await.unwrap_err();
    assert!(matches!(error, WaitError::NotAReplica), "{error}");
}

#[tokio::test]
async fn the_connection_ends_with_shutdown_and_with_the_last_handle() {
    let stack = stack().await;
    let replica = stack.replica("ending").unwrap();
    let mut connection = replica.connect("postgres").await.unwrap();
    let shut_down = watch(replica);
    let waits = wait_many(&shut_down, Lsn(u64::MAX), 10, LONG).await;
    shut_down.shutdown().await;
    for result in all(waits).await {
        assert!(matches!(result, Err(WaitError::Closed)), "{result:?}");
    }
    assert!(matches!(shut_down.wait(Lsn(1), LONG).await, Err(WaitError::Closed)));

    let dropped = watch(replica);
    let clone = dropped.clone();
    drop(dropped);
    clone.wait(Lsn(1), LONG).await.unwrap();
    drop(clone);
    let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'farwrite%'";
    let gone = async {
        while sqlx::query_scalar::<_, i64>(count).fetch_one(&mut connection).await.unwrap() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, gone).await.unwrap();
}
