//! `write` answers when the replica next door shows the command, and its pool never shows less.

use std::time::Duration;

use farwrite_devstack::Devstack;
use farwrite_lsn_watcher::EmbeddedConfig;
use farwrite_producer::{BookmarkError, Pending, ReadsFrom, WaitError, Watcher, WriteError};
use farwrite_schemas::Lsn;
use sqlx::{PgConnection, PgPool, postgres::PgPoolOptions};

use crate::stage::{BEHIND, LONG, REGION, Stage, id_of, raw, within};

async fn lsn(primary: &mut PgConnection) -> Lsn {
    let text: String = sqlx::query_scalar("SELECT pg_current_wal_flush_lsn()::text")
        .fetch_one(primary)
        .await
        .unwrap();
    text.parse().unwrap()
}

async fn count(pool: &PgPool) -> i64 {
    within(sqlx::query_scalar("SELECT count(*) FROM seen").fetch_one(pool)).await.unwrap()
}

/// One test for all that a replica does: it is one server, and it is held, crashed and put behind.
#[tokio::test]
async fn a_write_is_visible_when_it_says_so_and_stays_visible_on_a_replica_that_crashed() {
    let stage = Stage::new("visible").await;
    let mut broker = stage.broker().await;
    let (primary, replica) = (stage.stack.primary(), stage.stack.replica(REGION).unwrap());
    let database = stage.database_with_history().await;
    let producer =
        stage.builder().reads(ReadsFrom::replica(replica.url(database))).connect().await.unwrap();
    primary.execute(database, "CREATE TABLE seen (n int)").await.unwrap();
    let mut connection = primary.connect(database).await.unwrap();

    replica.wait_caught_up(primary, LONG).await.unwrap();
    // Held back, the replica is late; what is committed is not forgotten.
    replica.pause_replay().await.unwrap();
    primary.execute(database, "INSERT INTO seen VALUES (1)").await.unwrap();
    let committed_at = lsn(&mut connection).await;
    let late = producer.call_raw(raw("a", Some("k"), "1")).timeout(Duration::from_secs(1));
    let late = tokio::spawn(late.write());
    let command = broker.next().await;
    broker.store(&command, 1).await;
    stage.reply(&command, &stage.applied(id_of(&command), "7", committed_at)).await;
    let error = within(late).await.unwrap().unwrap_err();
    let WriteError::NotVisible { committed, cause } = error else { panic!("{error:?}") };
    assert!(matches!(*cause, WaitError::TimedOut { .. }), "{cause:?}");
    assert_eq!((committed.id, committed.output.get()), (id_of(&command), "7"));

    // Once it has caught up, the bookmark is reached and the pool shows it.
    replica.resume_replay().await.unwrap();
    within(producer.wait_within(&committed.bookmark, Duration::from_secs(30))).await.unwrap();
    let pool = producer.reads().unwrap();
    assert_eq!(count(pool).await, 1);

    let foreign = farwrite_producer::Bookmark {
        database: farwrite_producer::DatabaseName::new("elsewhere").unwrap(),
        ..committed.bookmark
    };
    let error = producer.wait_within(&foreign, Duration::from_secs(1)).await.unwrap_err();
    assert!(matches!(error, BookmarkError::OtherDatabase { .. }), "{error:?}");

    // Crashed and come back, it shows all that was said to be visible on every new connection.
    replica.kill().await.unwrap();
    replica.start().await.unwrap();
    assert_eq!(count(pool).await, 1);
    assert_eq!(producer.pending(), Pending::default());
}

/// What a crashed replica does, without luck: the pool reads a server that is behind the one that
/// the watcher spoke of.
#[tokio::test]
async fn a_connection_that_shows_less_than_was_promised_waits_until_it_has_caught_up() {
    for is_new in [true, false] {
        shows_less_than_was_promised(is_new).await;
    }
}

async fn shows_less_than_was_promised(is_new: bool) {
    let stage = Stage::new("behind").await;
    let primary = stage.stack.primary();
    let behind = stage.stack.replica(BEHIND).unwrap();
    let database = stage.database_with_history().await;
    primary.execute(database, "CREATE TABLE late (n int)").await.unwrap();
    behind.wait_caught_up(primary, LONG).await.unwrap();
    behind.pause_replay().await.unwrap();
    primary.execute(database, "INSERT INTO late VALUES (1)").await.unwrap();
    let mut connection = primary.connect(database).await.unwrap();
    let bookmark = stage.bookmark(lsn(&mut connection).await);
    let watched = stage.stack.replica(REGION).unwrap().url(database);
    let watcher = Watcher::embedded(EmbeddedConfig::new(watched)).unwrap();
    let one = PgPoolOptions::new().max_connections(1);
    let producer =
        stage.builder().reads(ReadsFrom::replica(behind.url(database)).watcher(watcher)).pool(one);
    let producer = producer.connect().await.unwrap();
    let pool = producer.reads().unwrap();
    let rows = || sqlx::query_scalar::<_, i64>("SELECT count(*) FROM late").fetch_one(pool);
    assert_eq!(within(rows()).await.unwrap(), 0, "nothing was promised yet");
    // A caller hears late that it was reached: the server that said so may be gone by then, and the
    // connection be to the one that came after it.
    if is_new {
        within(pool.acquire()).await.unwrap().close().await.unwrap();
    }
    within(producer.wait_within(&bookmark, LONG)).await.unwrap();
    let healing = async {
        // Time for a connection that is not checked to answer wrongly; the verdict needs no luck.
        tokio::time::sleep(Duration::from_millis(300)).await;
        behind.resume_replay().await.unwrap();
    };
    let (rows, ()) = within(async { tokio::join!(rows(), healing) }).await;
    assert_eq!(rows.unwrap(), 1, "a new connection: {is_new}");
}

/// What a replica is that was wound back to where a failover ended its timeline, without one: the
/// pool reads a server with that history, which is behind the one that the watcher spoke of.
#[tokio::test]
async fn a_server_that_a_failover_put_behind_is_read_again() {
    let stage = Stage::new("rewound").await;
    let other = Devstack::builder().start().await.unwrap();
    let database = stage.prepare_history(other.primary()).await;
    let sql =
        "SELECT farwrite.begin_epoch(gen_random_uuid(), epoch, NULL, 2) FROM farwrite.history";
    other.primary().execute(database, sql).await.unwrap();
    stage.database_with_history().await;
    let mut primary = stage.stack.primary().connect(database).await.unwrap();
    let mut there = other.primary().connect(database).await.unwrap();
    while lsn(&mut primary).await <= lsn(&mut there).await {
        let switch = sqlx::query("SELECT pg_logical_emit_message(true, 'x', ''), pg_switch_wal()");
        switch.execute(&mut primary).await.unwrap();
    }
    let watched = stage.stack.primary().url(database);
    let watcher = Watcher::embedded(EmbeddedConfig::new(watched)).unwrap();
    let one = PgPoolOptions::new().max_connections(1);
    let producer = stage
        .builder()
        .reads(ReadsFrom::replica(other.primary().url(database)).watcher(watcher))
        .pool(one);
    let producer = producer.connect().await.unwrap();
    let bookmark = stage.bookmark(lsn(&mut primary).await);
    within(producer.wait_within(&bookmark, LONG)).await.unwrap();
    let rows = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM farwrite.history");
    assert_eq!(within(rows.fetch_one(producer.reads().unwrap())).await.unwrap(), 2);
}

#[tokio::test]
async fn where_reads_go_to_the_primary_a_committed_write_is_visible() {
    let stage = Stage::new("primary").await;
    let mut broker = stage.broker().await;
    let url = stage.stack.primary().url(stage.database_with_history().await);
    let producer = stage.builder().reads(ReadsFrom::primary(url)).connect().await.unwrap();
    let call = tokio::spawn(producer.call_raw(raw("a", None, "1")).write());
    let command = broker.next().await;
    let mut primary = stage.stack.primary().connect("postgres").await.unwrap();
    let committed_at = lsn(&mut primary).await;
    stage.reply(&command, &stage.applied(id_of(&command), "7", committed_at)).await;
    assert_eq!(within(call).await.unwrap().unwrap().output.get(), "7");
    let one: i32 =
        sqlx::query_scalar("SELECT 1").fetch_one(producer.reads().unwrap()).await.unwrap();
    assert_eq!(one, 1);
}

#[tokio::test]
async fn without_reads_a_write_is_not_sent() {
    let stage = Stage::new("no-reads").await;
    let producer = stage.producer().await;
    let error = within(producer.call_raw(raw("a", None, "1")).write()).await.unwrap_err();
    assert!(matches!(error, WriteError::NoReads { .. }), "{error:?}");
    assert!(producer.reads().is_err());
    assert_eq!(producer.pending(), Pending::default());
}
