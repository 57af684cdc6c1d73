//! Rust handlers, in a worker of the test's own.

use anyhow::{Result, ensure};
use farwrite_primary_worker::{Config, Handler, HandlerError, Handlers, Meta, Worker, WorkerError};
use farwrite_schemas::{Command, Key, KeyError, Outcome, Rejection};
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
}

impl Command for Append {
    const NAME: &'static str = "test.append";
    type Output = i32;
    fn key(&self) -> Result<Option<Key>, KeyError> {
        Ok(None)
    }
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
    let config = Config::new(case.name.parse()?, url, case.stack.nats().url());
    Ok(Worker::new(config, Handlers::new().with(Appends)?)?)
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
