//! The primary fails, or NATS, or another worker. No command is blamed, none is lost.

use anyhow::{Result, ensure};

use crate::support::{Case, Message};

#[tokio::test]
async fn sigterm_ends_a_busy_worker_with_status_0_and_loses_nothing() -> Result<()> {
    let case = Case::new("sigterm", &[]).await?;
    let mut n = 0;
    for _ in 0..3 {
        let worker = case.serving_worker().await?;
        for _ in 0..200 {
            case.publish(&Message::append(&format!("key {}", n % 10), n)).await?;
            n += 1;
        }
        // The bound is five seconds.
        let status = worker.terminate(std::time::Duration::from_secs(5)).await?;
        ensure!(status.success(), "{status}\n{}", worker.log_tail());
    }
    let _worker = case.worker()?;
    case.check_model().await
}

#[tokio::test]
async fn a_command_whose_function_breaks_is_set_aside_and_its_key_goes_on() -> Result<()> {
    let case = Case::new("broken_function", &[]).await?;
    let sql = "CREATE FUNCTION app.broken(body jsonb) RETURNS void LANGUAGE plpgsql AS $$
               BEGIN INSERT INTO app.not_there VALUES (1); END $$;
               SELECT farwrite.register('app.broken', 'app.broken(jsonb)')";
    case.stack.primary().execute(&case.name, sql).await?;
    for n in 0..40 {
        let name = if n % 10 == 5 { "app.broken" } else { "app.append" };
        case.publish(&Message { name: name.to_owned(), ..Message::append("a", n) }).await?;
    }
    let _worker = case.worker()?;
    case.settled().await?;
    let effects: Vec<i32> = (0..40).filter(|n| n % 10 != 5).collect();
    ensure!(case.effects().await? == [("a".to_owned(), effects)].into());
    ensure!(
        case.count("SELECT count(*) FROM farwrite.dead_letters WHERE reason = 'not_ready'").await?
            == 4
    );
    Ok(())
}

#[tokio::test]
async fn a_constraint_that_is_checked_at_commit_rejects_only_its_command() -> Result<()> {
    let case = Case::new("deferred", &[]).await?;
    let sql = "CREATE TABLE app.unique_n (n integer CONSTRAINT one_n UNIQUE DEFERRABLE INITIALLY DEFERRED);
               CREATE FUNCTION app.take(body jsonb) RETURNS void LANGUAGE sql AS
                   'INSERT INTO app.unique_n VALUES ((body->>''n'')::integer)';
               SELECT farwrite.register('app.take', 'app.take(jsonb)')";
    case.stack.primary().execute(&case.name, sql).await?;
    let mut ids = Vec::new();
    for n in [1, 2, 1, 3] {
        let message = Message { name: "app.take".to_owned(), ..Message::append("a", n) };
        ids.push(message.id);
        case.publish(&message).await?;
    }
    let _worker = case.worker()?;
    case.settled().await?;
    ensure!(case.count("SELECT count(*) FROM app.unique_n").await? == 3);
    let outcome = case.outcome(ids[2]).await?.map(|reply| reply.outcome);
    let is_it = matches!(&outcome, Some(farwrite_schemas::Outcome::Rejected(rejection))
        if rejection.code == "23505" && rejection.constraint.as_deref() == Some("one_n"));
    ensure!(is_it, "{outcome:?}");
    Ok(())
}

#[tokio::test]
async fn backends_that_are_killed_and_a_broker_that_restarts_blame_no_command() -> Result<()> {
    // A stack of its own: the broker is everybody's.
    static OWN: tokio::sync::OnceCell<farwrite_devstack::Devstack> =
        tokio::sync::OnceCell::const_new();
    let own = OWN.get_or_try_init(|| farwrite_devstack::Devstack::builder().start()).await?;
    let case = Case::on(own, "world", &[]).await?;
    let worker = case.serving_worker().await?;
    let mut n = 0;
    for round in 0..4 {
        for _ in 0..100 {
            case.publish(&Message::append(&format!("key {}", n % 5), n)).await?;
            n += 1;
        }
        match round {
            0 => own.primary().execute(&case.name, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'farwrite%' AND datname = current_database()").await?,
            1 => own.nats().restart().await?,
            2 => {
                own.primary().kill().await?;
                own.primary().start().await?;
            }
            _ => {}
        }
    }
    case.check_model().await?;
    ensure!(worker.status()?.is_none(), "{}", worker.log_tail());
    ensure!(
        case.count("SELECT count(*) FROM farwrite.ledger WHERE outcome <> 'applied'").await? == 0
    );
    Ok(())
}

#[tokio::test]
async fn a_worker_whose_takeovers_come_to_nothing_takes_over_less_and_less_often() -> Result<()> {
    let case = Case::new("in_vain", &[]).await?;
    // What every lane asks first.
    let rename = |from: &str, to: &str| {
        format!("ALTER FUNCTION farwrite.{from}(integer, integer, integer) RENAME TO {to}")
    };
    case.execute(&rename("next_due", "gone")).await?;
    let worker = case.worker()?;
    let pauses =
        "SELECT count(*) FROM (SELECT taken_at - lag(taken_at) OVER (ORDER BY number) AS pause
                  FROM farwrite.history) p WHERE pause > '700 milliseconds'";
    case.until_count(pauses, 2).await?;
    let takeovers = case.count("SELECT count(*) FROM farwrite.history").await?;
    ensure!(takeovers <= 8, "{takeovers} takeovers before two pauses were long");
    case.execute(&rename("gone", "next_due")).await?;
    case.publish(&Message::append("a", 1)).await?;
    case.check_model().await?;
    ensure!(worker.status()?.is_none(), "{}", worker.log_tail());
    Ok(())
}
