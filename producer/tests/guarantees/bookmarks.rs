//! Bookmarks between regions: which pool shows one, reads that never go back, servers that are not
//! what they were said to be, and several databases in one app.

use std::time::Duration;

use farwrite_devstack::Devstack;
use farwrite_producer::{
    Bookmark, BookmarkError, Limits, Producer, ReadAtError, ReadsFrom, ServerRole, WaitError,
};
use farwrite_schemas::Lsn;
use sqlx::{Connection, PgConnection};

use crate::stage::{HOPS, LONG, Stage, within};

/// A commit on the primary, and its bookmark.
async fn commit(stage: &Stage, primary: &mut PgConnection) -> Bookmark {
    sqlx::query("INSERT INTO seen VALUES (1)").execute(&mut *primary).await.unwrap();
    let text: String = sqlx::query_scalar("SELECT pg_current_wal_flush_lsn()::text")
        .fetch_one(primary)
        .await
        .unwrap();
    stage.bookmark(text.parse().unwrap())
}

async fn rows(producer: &Producer, bookmark: &Bookmark) -> (i64, ServerRole) {
    let read = within(producer.read_at(bookmark)).await.unwrap();
    let rows = sqlx::query_scalar("SELECT count(*) FROM seen").fetch_one(read.pool);
    (within(rows).await.unwrap(), read.from)
}

/// One test for all that needs replicas to be held: they are everybody's.
#[tokio::test]
async fn a_bookmark_is_read_here_or_on_the_primary_and_a_read_has_one_of_its_own() {
    let stage = Stage::new("hops").await;
    let database = stage.database_with_history().await;
    let primary = stage.stack.primary();
    let [here, there] = HOPS.map(|region| stage.stack.replica(region).unwrap());
    let mut writing = primary.connect(database).await.unwrap();
    sqlx::query("CREATE TABLE seen (n int)").execute(&mut writing).await.unwrap();
    let limits = |budget| Limits::default().read_budget(budget);
    let with_primary = stage
        .builder()
        .reads(ReadsFrom::replica(here.url(database)).or_primary(primary.url(database)));
    let with_primary = with_primary.limits(limits(Duration::from_millis(20)));
    let with_primary = with_primary.connect().await.unwrap();

    // In time: here.
    let first = commit(&stage, &mut writing).await;
    within(with_primary.wait(&first)).await.unwrap();
    assert_eq!(rows(&with_primary, &first).await, (1, ServerRole::Replica));

    // Held back: on the primary, again and again.
    here.pause_replay().await.unwrap();
    assert_eq!(rows(&with_primary, &first).await, (1, ServerRole::Replica), "that one it shows");
    let second = commit(&stage, &mut writing).await;
    for _ in 0..5 {
        assert_eq!(rows(&with_primary, &second).await, (2, ServerRole::Primary));
    }

    // Without a primary there is an error, which says what was seen.
    let alone = stage.builder().reads(ReadsFrom::replica(here.url(database)));
    let timeout = Duration::from_millis(300);
    let alone = alone.limits(Limits::default().timeout(timeout)).connect().await.unwrap();
    let error = within(alone.read_at(&second)).await.unwrap_err();
    let ReadAtError::Bookmark(BookmarkError::Wait(error)) = error else { panic!("{error:?}") };
    let WaitError::TimedOut { target, seen } = *error else { panic!("{error:?}") };
    assert_eq!(target, second.lsn);
    assert!(seen.reached.is_some_and(|reached| reached < target) && seen.waited >= timeout);
    assert_eq!((seen.timeline.map(|timeline| timeline.0), seen.doubt), (Some(1), None));

    // A read has a bookmark, which holds whoever reads elsewhere until it is shown there too.
    there.wait_caught_up(primary, LONG).await.unwrap();
    let mut reading = PgConnection::connect(&there.url(database)).await.unwrap();
    let seen: i64 =
        sqlx::query_scalar("SELECT count(*) FROM seen").fetch_one(&mut reading).await.unwrap();
    assert_eq!(seen, 2);
    let read = within(alone.bookmark(&mut reading)).await.unwrap().unwrap();
    assert!(read.lsn >= second.lsn && read.epoch == second.epoch);
    assert!(alone.wait_within(&read, timeout).await.is_err(), "it would go back in time");
    here.resume_replay().await.unwrap();
    within(alone.wait_within(&read, LONG)).await.unwrap();
    assert_eq!(rows(&alone, &read).await, (2, ServerRole::Replica));
    // The primary's own commits have one as well.
    let own = within(alone.bookmark(&mut writing)).await.unwrap().unwrap();
    assert!(own.lsn >= read.lsn);
}

#[tokio::test]
async fn a_server_is_what_it_is_and_not_what_it_is_said_to_be() {
    let stage = Stage::new("roles").await;
    let database = stage.database_with_history().await;
    let (primary, replica) = (stage.stack.primary(), stage.stack.replica("jfk").unwrap());
    let mut writing = primary.connect(database).await.unwrap();
    sqlx::query("CREATE TABLE seen (n int)").execute(&mut writing).await.unwrap();
    replica.wait_caught_up(primary, LONG).await.unwrap();

    // One plain database and no replica, as on a developer's machine.
    let on_primary =
        stage.builder().reads(ReadsFrom::replica(primary.url(database))).connect().await.unwrap();
    let bookmark = commit(&stage, &mut writing).await;
    assert_eq!(rows(&on_primary, &bookmark).await, (1, ServerRole::Primary));

    // A replica that is taken for the primary is waited for all the same.
    let on_replica =
        stage.builder().reads(ReadsFrom::primary(replica.url(database))).connect().await.unwrap();
    for n in 2..50 {
        let bookmark = commit(&stage, &mut writing).await;
        assert_eq!(rows(&on_replica, &bookmark).await, (n, ServerRole::Replica));
    }
}

#[tokio::test]
async fn bookmarks_of_two_databases_are_not_mixed_up() {
    let (shop, blog) = (Stage::new("shop").await, Stage::new("blog").await);
    let mut producers = Vec::new();
    for stage in [&shop, &blog] {
        let database = stage.database_with_history().await;
        let url = stage.stack.primary().url(database);
        producers.push(stage.builder().reads(ReadsFrom::primary(url)).connect().await.unwrap());
    }
    let mut writing = shop.stack.primary().connect(shop.database.as_str()).await.unwrap();
    sqlx::query("CREATE TABLE seen (n int)").execute(&mut writing).await.unwrap();
    let bookmark = commit(&shop, &mut writing).await;
    within(producers[0].wait(&bookmark)).await.unwrap();
    let error = within(producers[1].wait(&bookmark)).await.unwrap_err();
    assert!(matches!(error, BookmarkError::OtherDatabase { .. }), "{error:?}");
    let error = within(producers[1].read_at(&bookmark)).await.unwrap_err();
    let is_named = matches!(error, ReadAtError::Bookmark(BookmarkError::OtherDatabase { .. }));
    assert!(is_named, "{error:?}");
}

#[tokio::test]
async fn a_bookmark_that_nobody_gave_out_is_refused_or_given_up_in_time() {
    let stage = Stage::new("forged").await;
    let database = stage.database_with_history().await;
    let url = stage.stack.primary().url(database);
    let producer = stage.builder().reads(ReadsFrom::primary(url)).connect().await.unwrap();
    let mut writing = stage.stack.primary().connect(database).await.unwrap();
    sqlx::query("CREATE TABLE seen (n int)").execute(&mut writing).await.unwrap();
    let real = commit(&stage, &mut writing).await;
    let wait = async |bookmark: Bookmark| {
        let waited = within(producer.wait_within(&bookmark, Duration::from_millis(300))).await;
        match waited.unwrap_err() {
            BookmarkError::Wait(error) => *error,
            other => panic!("{other:?}"),
        }
    };
    let epoch = farwrite_schemas::Epoch(farwrite_producer::CommandId::now().uuid());
    let error = wait(Bookmark { epoch, ..real.clone() }).await;
    assert!(matches!(error, WaitError::Superseded { .. }), "an epoch of nobody's: {error:?}");
    let timeline = farwrite_schemas::Timeline(7);
    let error = wait(Bookmark { timeline, ..real.clone() }).await;
    assert!(matches!(error, WaitError::Superseded { .. }), "another timeline: {error:?}");
    let error = wait(Bookmark { lsn: Lsn(u64::MAX), ..real.clone() }).await;
    assert!(matches!(error, WaitError::Implausible { .. }), "in the far future: {error:?}");
    let error = wait(Bookmark { lsn: Lsn(real.lsn.0 + (1 << 30)), ..real }).await;
    assert!(matches!(error, WaitError::TimedOut { .. }), "in the future: {error:?}");
}

/// Asks again and again; errors are of a server that has just started.
async fn until_true(connection: &mut PgConnection, sql: &'static str, argument: &str) {
    let asking = async {
        while !sqlx::query_scalar(sql)
            .bind(argument)
            .fetch_one(&mut *connection)
            .await
            .unwrap_or(false)
        {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    within(asking).await;
}

/// Rows show a moment before the replayed position moves. A replica that receives is ahead of both;
/// one that was restarted and replays from its own disk has nothing else to go by.
#[tokio::test]
async fn a_read_on_a_restarted_replica_has_a_bookmark_that_holds_what_was_read() {
    let stack = Devstack::builder().regions(["ewr", "jfk"]).start().await.unwrap();
    let stack: &'static Devstack = Box::leak(Box::new(stack));
    let stage = Stage::on(stack, "restarted").await;
    let database = stage.database_with_history().await;
    let (primary, replica) = (stack.primary(), stack.replica("jfk").unwrap());
    let mut writing = primary.connect(database).await.unwrap();
    let each = |act: &str| {
        format!("DO $$ BEGIN FOR i IN 1..2000 LOOP EXECUTE '{act}' || i{}; END LOOP; END $$", {
            if act.starts_with("CREATE") { " || ' (n int)'" } else { "" }
        })
    };
    primary.execute(database, "CREATE TABLE seen (n int)").await.unwrap();
    primary.execute(database, &each("CREATE TABLE gone_")).await.unwrap();
    replica.wait_caught_up(primary, LONG).await.unwrap();
    // So long that the reader is there before the commit is replayed.
    let delay = "ALTER SYSTEM SET recovery_min_apply_delay = '4s'";
    replica.execute("postgres", delay).await.unwrap();
    replica.execute("postgres", "SELECT pg_reload_conf()").await.unwrap();
    // Its replay shows the row first, and then takes away the files of all these tables.
    let dropping =
        format!("BEGIN; INSERT INTO seen VALUES (1); {}; COMMIT", each("DROP TABLE gone_"));
    primary.execute(database, &dropping).await.unwrap();
    let committed: String = sqlx::query_scalar("SELECT pg_current_wal_flush_lsn()::text")
        .fetch_one(&mut writing)
        .await
        .unwrap();
    let mut reading = replica.connect(database).await.unwrap();
    let received = "SELECT pg_last_wal_receive_lsn() >= $1::text::pg_lsn";
    until_true(&mut reading, received, &committed).await;
    stack.replication_link("jfk").unwrap().cut();
    replica.kill().await.unwrap();
    replica.start().await.unwrap();
    let producer =
        stage.builder().reads(ReadsFrom::replica(replica.url(database))).connect().await.unwrap();
    let mut reading = replica.connect(database).await.unwrap();
    until_true(&mut reading, "SELECT count(*) = 1 FROM seen WHERE $1 <> ''", &committed).await;
    let read = within(producer.bookmark(&mut reading)).await.unwrap().unwrap();
    let committed: Lsn = committed.parse().unwrap();
    assert!(read.lsn >= committed, "{} was read, and the bookmark says {}", committed, read.lsn);
}

/// A primary sends a commit to its replicas before it shows it itself: it waits for a synchronous
/// standby in between, or is held. Who has read it on a replica must not go back on the primary.
#[tokio::test]
async fn what_a_replica_showed_before_the_primary_did_is_waited_for_there() {
    let stack = Devstack::builder().regions(["ewr", "jfk"]).start().await.unwrap();
    let stack: &'static Devstack = Box::leak(Box::new(stack));
    let stage = Stage::on(stack, "ahead").await;
    let database = stage.database_with_history().await;
    let (primary, replica) = (stack.primary(), stack.replica("jfk").unwrap());
    primary.execute(database, "CREATE TABLE seen (n int)").await.unwrap();
    let here =
        stage.builder().reads(ReadsFrom::replica(replica.url(database))).connect().await.unwrap();
    let home =
        stage.builder().reads(ReadsFrom::primary(primary.url(database))).connect().await.unwrap();
    let first = within(async {
        let mut writing = primary.connect(database).await.unwrap();
        here.bookmark(&mut writing).await.unwrap().unwrap()
    });
    let first = first.await;
    assert_eq!(rows(&home, &first).await, (0, ServerRole::Primary));

    // Somebody who writes for long, and does not commit, holds nobody up.
    let mut long = primary.connect(database).await.unwrap();
    sqlx::query("BEGIN").execute(&mut long).await.unwrap();
    sqlx::query("INSERT INTO seen VALUES (7)").execute(&mut long).await.unwrap();

    let nobody = |names: &str| format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'");
    primary.execute("postgres", &nobody("nobody")).await.unwrap();
    primary.execute("postgres", "SELECT pg_reload_conf()").await.unwrap();
    let mut told = primary.connect(database).await.unwrap();
    until_true(&mut told, "SELECT current_setting('synchronous_standby_names') = $1", "nobody")
        .await;
    let mut writing = primary.connect(database).await.unwrap();
    let write = tokio::spawn(async move { commit_row(&mut writing).await });
    let mut reading = replica.connect(database).await.unwrap();
    until_true(&mut reading, "SELECT count(*) = 1 FROM seen WHERE $1 <> ''", "rows").await;
    let read = within(here.bookmark(&mut reading)).await.unwrap().unwrap();
    let error = within(home.wait_within(&read, Duration::from_secs(1))).await;
    assert!(error.is_err(), "the primary does not show what the replica showed: {error:?}");
    assert!(!write.is_finished());

    primary.execute("postgres", &nobody("")).await.unwrap();
    primary.execute("postgres", "SELECT pg_reload_conf()").await.unwrap();
    within(write).await.unwrap();
    assert_eq!(rows(&home, &read).await, (1, ServerRole::Primary));
}

async fn commit_row(writing: &mut PgConnection) {
    sqlx::query("INSERT INTO seen VALUES (1)").execute(writing).await.unwrap();
}
