//! Rust handlers, in a worker of the test's own.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use farwrite_primary_worker::{
    Config, Handler, HandlerError, Handlers, Meta, Trial, Tried, Worker, WorkerError,
};
use farwrite_schemas::{Command, Outcome, Rejection, headers};
use sqlx::{Connection, PgConnection};
use tokio_util::sync::CancellationToken;

use crate::support::{Case, DEADLINE, Message};

/// `test.append`: what `app.append` does, in Rust, and some things that it must not do.
#[derive(serde::Serialize, serde::Deserialize)]
struct Append {
    n: i32,
    #[serde(default)]
    deed: Deed,
}

#[derive(Default, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
enum Deed {
    #[default]
    None,
    Refuse,
    Commit,
    Swallow,
    Panic,
    /// Asks for later until `app.ready` has a row.
    Later,
    /// Reads all columns of `app.shape`, with a prepared statement, and puts their number first.
    Shape,
    /// Takes two and a half seconds.
    Dawdle,
    /// Leaves the session as nobody should.
    Leave,
}

/// The newer version: its number is written in words.
#[derive(serde::Serialize, serde::Deserialize)]
struct AppendInWords {
    number: String,
}

impl Command for AppendInWords {
    const NAME: &'static str = "test.append";
    const VERSION: u32 = 3;
    type Output = i32;
}

/// The version between: it is made into the first one's.
#[derive(serde::Serialize, serde::Deserialize)]
struct AppendTens {
    tens: i32,
}

impl Command for AppendTens {
    const NAME: &'static str = "test.append";
    const VERSION: u32 = 2;
    type Output = i32;
}

impl Handler<AppendInWords> for Appends {
    async fn apply(
        &self,
        connection: &mut PgConnection,
        command: AppendInWords,
        meta: &Meta,
    ) -> Result<i32, HandlerError> {
        let n = ["one", "two", "three"].iter().position(|word| *word == command.number);
        let n = n.ok_or_else(|| Rejection::new("no_number", "it is no number"))?;
        let append = Append { n: i32::try_from(n).unwrap_or(0) + 1, deed: Deed::None };
        self.apply(connection, append, meta).await
    }
}

impl Command for Append {
    const NAME: &'static str = "test.append";
    type Output = i32;
}

struct Appends;

impl Handler<Append> for Appends {
    async fn apply(
        &self,
        connection: &mut PgConnection,
        command: Append,
        meta: &Meta,
    ) -> Result<i32, HandlerError> {
        let key = meta.key.as_ref().map_or("", |key| key.as_str());
        // A transaction of its own within is a savepoint.
        let mut within = connection.begin().await?;
        let place: i32 = sqlx::query_scalar(
            "INSERT INTO app.keys AS k VALUES ($1, 1)
             ON CONFLICT (key) DO UPDATE SET effects = k.effects + 1 RETURNING effects",
        )
        .bind(key)
        .fetch_one(&mut *within)
        .await?;
        within.commit().await?;
        sqlx::query("INSERT INTO app.effects VALUES ($1, $2, $3, $4)")
            .bind(key)
            .bind(place)
            .bind(meta.id.uuid())
            .bind(command.n)
            .execute(&mut *connection)
            .await?;
        match command.deed {
            Deed::None => {}
            Deed::Refuse => return Err(Rejection::new("by_test", "refused by test").into()),
            Deed::Commit => {
                sqlx::query("COMMIT").execute(connection).await?;
            }
            Deed::Swallow => drop(sqlx::query("SELECT 1/0").execute(connection).await),
            Deed::Panic => panic!("by test"),
            Deed::Later => {
                let ready: i64 = sqlx::query_scalar("SELECT count(*) FROM app.ready")
                    .fetch_one(connection)
                    .await?;
                if ready == 0 {
                    return Err(HandlerError::Later(Duration::from_millis(20)));
                }
            }
            Deed::Shape => {
                sqlx::query("SELECT * FROM app.shape").fetch_all(connection).await?;
            }
            Deed::Dawdle => {
                sqlx::query("SELECT pg_sleep(2.5)").execute(connection).await?;
            }
            Deed::Leave => {
                sqlx::raw_sql("SET search_path = pg_temp; SET LOCAL work_mem = '64kB'")
                    .execute(connection)
                    .await?;
            }
        }
        Ok(place)
    }
}

fn message(n: i32, deed: Deed) -> Result<Message> {
    let body = serde_json::to_string(&Append { n, deed })?;
    Ok(Message { name: Append::NAME.to_owned(), body, ..Message::append("a", n) })
}

fn worker(case: &Case) -> Result<Worker> {
    let url = case.stack.primary().url(&case.name);
    let config = Config::new(case.name.parse()?, url, case.stack.nats().url())
        .retry_pause(Duration::from_millis(5))
        .attempts_max(3);
    Ok(Worker::new(config, handlers()?)?)
}

fn handlers() -> Result<Handlers> {
    Ok(Handlers::new()
        .register::<Append, _>(Appends)?
        .register::<AppendInWords, _>(Appends)?
        .register_upcast(|older: AppendTens| Append { n: older.tens * 10, deed: Deed::None })?)
}

#[tokio::test]
async fn what_a_handler_refuses_leaves_nothing_and_its_neighbours_are_applied() -> Result<()> {
    let case = Case::new("handler", &[]).await?;
    let mut refused = Vec::new();
    for n in 0..120 {
        let deed = if n % 10 == 3 { Deed::Refuse } else { Deed::None };
        // Functions of the database and handlers share batches, and keep one order.
        let message = if n % 7 == 1 { Message::append("a", n) } else { message(n, deed)? };
        refused.extend((n % 10 == 3 && n % 7 != 1).then_some((n, message.id)));
        case.publish(&message).await?;
    }
    let stop = CancellationToken::new();
    let running = tokio::spawn(worker(&case)?.run(stop.clone()));
    case.settled().await?;
    let expected: Vec<i32> =
        (0..120).filter(|n| !refused.iter().any(|(other, _)| other == n)).collect();
    ensure!(
        case.effects().await? == [("a".to_owned(), expected)].into(),
        "{:?}",
        case.effects().await?
    );
    for (_, id) in refused {
        let outcome = case.outcome(id).await?.map(|reply| reply.outcome);
        let is_it =
            matches!(&outcome, Some(Outcome::Rejected(rejection)) if rejection.code == "by_test");
        ensure!(is_it, "{outcome:?}");
    }
    stop.cancel();
    Ok(running.await??)
}

#[tokio::test]
async fn a_handler_that_swallows_an_error_is_not_taken_at_its_word() -> Result<()> {
    let case = Case::new("swallowed", &[]).await?;
    let swallowing = message(2, Deed::Swallow)?;
    for message in [message(1, Deed::None)?, swallowing.clone(), message(3, Deed::None)?] {
        case.publish(&message).await?;
    }
    let stop = CancellationToken::new();
    let running = tokio::spawn(worker(&case)?.run(stop.clone()));
    case.settled().await?;
    ensure!(case.effects().await? == [("a".to_owned(), vec![1, 3])].into());
    let outcome = case.outcome(swallowing.id).await?.map(|reply| reply.outcome);
    ensure!(matches!(outcome, Some(Outcome::DeadLettered(_))), "{outcome:?}");
    stop.cancel();
    Ok(running.await??)
}

#[tokio::test]
async fn a_handler_that_commits_the_batch_stops_the_worker_with_what_to_do() -> Result<()> {
    let case = Case::new("committed", &[]).await?;
    case.publish(&message(1, Deed::Commit)?).await?;
    let running = worker(&case)?.run(CancellationToken::new());
    let ended = tokio::time::timeout(DEADLINE, running).await?;
    ensure!(matches!(ended, Err(WorkerError::Broken(_))), "{ended:?}");
    Ok(())
}

#[tokio::test]
async fn a_handler_that_panics_or_asks_for_later_holds_nobody_else_up() -> Result<()> {
    let case = Case::new("panics", &[]).await?;
    case.execute("CREATE TABLE app.ready (only_row boolean)").await?;
    let (panics, later) = (message(2, Deed::Panic)?, message(4, Deed::Later)?);
    let other = Message { key: Some("b".to_owned()), ..message(1, Deed::None)? };
    for message in [
        message(1, Deed::None)?,
        panics.clone(),
        message(3, Deed::None)?,
        later.clone(),
        message(5, Deed::None)?,
        other,
    ] {
        case.publish(&message).await?;
    }
    let stop = CancellationToken::new();
    let running = tokio::spawn(worker(&case)?.run(stop.clone()));
    case.applied("b", 1).await?;
    let ended = case.ended(panics.id).await?;
    ensure!(ended == ("dead_lettered".to_owned(), "attempts_used_up".to_owned()), "{ended:?}");
    case.applied("a", 3).await?;
    case.parked("later", 1).await?;
    // Far more often than attempts are allowed.
    tokio::time::sleep(Duration::from_millis(200)).await;
    case.execute("INSERT INTO app.ready VALUES (true)").await?;
    case.settled().await?;
    ensure!(case.effects().await?["a"] == [1, 3, 4, 5]);
    stop.cancel();
    Ok(running.await??)
}

/// The batch is opened in time; the companion before it takes too long.
#[tokio::test]
async fn a_handlers_command_whose_time_passes_within_its_batch_expires() -> Result<()> {
    let case = Case::new("dawdled", &[]).await?;
    let late = message(2, Deed::None)?.at(headers::EXPIRES_AT, 1_500);
    for message in [message(1, Deed::Dawdle)?, late.clone(), message(3, Deed::None)?] {
        case.publish(&message).await?;
    }
    let stop = CancellationToken::new();
    let running = tokio::spawn(worker(&case)?.run(stop.clone()));
    ensure!(case.ended(late.id).await?.0 == "expired");
    case.settled().await?;
    ensure!(case.effects().await?["a"] == [1, 3]);
    stop.cancel();
    Ok(running.await??)
}

#[tokio::test]
async fn a_plan_that_a_schema_change_made_stale_is_cured_without_a_takeover() -> Result<()> {
    let case = Case::new("stale", &[]).await?;
    case.execute("CREATE TABLE app.shape (a integer)").await?;
    let stop = CancellationToken::new();
    let running = tokio::spawn(worker(&case)?.run(stop.clone()));
    case.publish(&message(1, Deed::Shape)?).await?;
    case.settled().await?;
    case.execute("ALTER TABLE app.shape ADD COLUMN b text").await?;
    let after = message(2, Deed::Shape)?;
    case.publish(&after).await?;
    case.publish(&message(3, Deed::None)?).await?;
    case.settled().await?;
    ensure!(case.ended(after.id).await?.0 == "applied");
    ensure!(case.effects().await?["a"] == [1, 2, 3]);
    ensure!(case.count("SELECT count(*) FROM farwrite.history").await? == 1, "a takeover");
    stop.cancel();
    Ok(running.await??)
}

#[tokio::test]
async fn versions_of_a_command_stand_side_by_side_or_are_upcast() -> Result<()> {
    let case = Case::new("versions", &[]).await?;
    let version = |version: u32, body: &str| {
        let mut message = Message { body: body.to_owned(), ..Message::append("a", 0) };
        message.headers.push((headers::VERSION, version.to_string()));
        message.named(Append::NAME)
    };
    let messages = [
        message(1, Deed::None)?,
        version(3, "{\"number\": \"two\"}"),
        version(2, "{\"tens\": 3}"),
        version(2, "{\"number\": 7}"),
        version(3, "{\"number\": \"seven\"}"),
    ];
    let stop = CancellationToken::new();
    let running = tokio::spawn(worker(&case)?.run(stop.clone()));
    let mut codes = Vec::new();
    for message in &messages {
        case.publish(message).await?;
        codes.push(case.ended(message.id).await?.1);
    }
    ensure!(case.effects().await?["a"] == [1, 2, 30]);
    ensure!(codes == ["", "", "", "bad_body", "no_number"], "{codes:?}");
    stop.cancel();
    Ok(running.await??)
}

#[tokio::test]
async fn what_a_handler_leaves_in_the_session_does_not_meet_the_next_command() -> Result<()> {
    let case = Case::new("leaves", &[]).await?;
    let sql = "CREATE TABLE app.seen (path text, memory text);
               CREATE FUNCTION app.look(body jsonb) RETURNS void LANGUAGE sql AS
                   $$ INSERT INTO app.seen VALUES (current_setting('search_path'), current_setting('work_mem')) $$;
               SELECT farwrite.register('app.look', 'app.look(jsonb)')";
    case.execute(sql).await?;
    for message in [
        Message::append("a", 1).named("app.look"),
        message(2, Deed::Leave)?,
        Message::append("a", 3).named("app.look"),
    ] {
        case.publish(&message).await?;
    }
    let stop = CancellationToken::new();
    let running = tokio::spawn(worker(&case)?.run(stop.clone()));
    case.settled().await?;
    case.publish(&message(4, Deed::Leave)?).await?;
    case.settled().await?;
    case.publish(&Message::append("a", 5).named("app.look")).await?;
    case.settled().await?;
    let views = "SELECT count(*) FROM (SELECT DISTINCT path, memory FROM app.seen) s";
    ensure!(case.count(views).await? == 1);
    stop.cancel();
    Ok(running.await??)
}

#[tokio::test]
async fn a_trial_tells_the_outcome_and_leaves_nothing() -> Result<()> {
    let case = Case::new("trial", &[]).await?;
    let mut elsewhere = case.stack.primary().connect("postgres").await?;
    let error = Trial::begin(&mut elsewhere).await.err().context("begun without a schema")?;
    ensure!(error.to_string().contains("run `farwrite worker migrate`"), "{error}");
    let mut connection = case.primary().await?;
    let handlers = handlers()?;
    let mut trial = Trial::begin(&mut connection).await?;
    for n in [1, 2] {
        let tried = trial.run(&handlers, &Append { n, deed: Deed::None }).await?;
        ensure!(
            matches!(&tried, Tried::Ended(Outcome::Applied { output }) if output.get() == n.to_string()),
            "{tried:?}"
        );
    }
    let refused = trial.run(&handlers, &Append { n: 3, deed: Deed::Refuse }).await?;
    ensure!(
        matches!(&refused, Tried::Ended(Outcome::Rejected(r)) if r.code == "by_test"),
        "{refused:?}"
    );
    let panicked = trial.run(&handlers, &Append { n: 4, deed: Deed::Panic }).await?;
    ensure!(matches!(panicked, Tried::Parked { reason: "retry", .. }), "{panicked:?}");
    let later = trial.run(&handlers, &Append { n: 5, deed: Deed::Later }).await?;
    ensure!(matches!(later, Tried::Parked { reason: "not_ready", .. }), "{later:?}");
    // Functions of the database too, with what the registry says of them.
    let body = "{\"n\": 6}";
    let tried = trial.run_raw(&handlers, "app.append", 1, Some("a"), body).await?;
    ensure!(matches!(tried, Tried::Ended(Outcome::Applied { .. })), "{tried:?}");
    let unknown = trial.run_raw(&handlers, "app.unknown", 1, None, body).await?;
    ensure!(matches!(unknown, Tried::Parked { reason: "unknown_command", .. }), "{unknown:?}");
    let wrong = trial.run_raw(&handlers, "app.append", 1, None, "{").await?;
    ensure!(
        matches!(&wrong, Tried::Ended(Outcome::DeadLettered(d)) if d.reason == "not_json"),
        "{wrong:?}"
    );
    // What only a commit would find is found.
    let sql =
        "CREATE TABLE app.one (n integer CONSTRAINT one_n UNIQUE DEFERRABLE INITIALLY DEFERRED);
               CREATE FUNCTION app.take(body jsonb) RETURNS void LANGUAGE sql AS
                   'INSERT INTO app.one VALUES ((body->>''n'')::integer)';
               SELECT farwrite.register('app.take', 'app.take(jsonb)')";
    sqlx::raw_sql(sql).execute(trial.connection()).await?;
    for code in [None, Some("23505")] {
        let tried = trial.run_raw(&handlers, "app.take", 1, None, body).await?;
        let found = match &tried {
            Tried::Ended(Outcome::Rejected(rejection)) => Some(rejection.code.as_str()),
            _ => None,
        };
        ensure!(found == code, "{tried:?}");
    }
    let inside: i64 = sqlx::query_scalar("SELECT count(*) FROM app.effects")
        .fetch_one(trial.connection())
        .await?;
    ensure!(inside == 3, "{inside} effects inside");
    drop(trial);
    ensure!(case.count("SELECT count(*) FROM app.effects").await? == 0);
    ensure!(case.count("SELECT count(*) FROM farwrite.ledger").await? == 0);
    Ok(())
}
