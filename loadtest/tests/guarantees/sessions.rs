//! Sessions: what a database is set to ends none, and a login that is refused for a while is waited for.

use std::time::Duration;

use anyhow::{Result, ensure};
use farwrite_devstack::Devstack;

use crate::support::{Append, Case, Message};

#[tokio::test]
async fn what_a_database_is_set_to_ends_no_session_and_no_wait() -> Result<()> {
    let case = Case::new("set", &[]).await?;
    let name = &case.name;
    case.execute(&format!(
        "ALTER DATABASE \"{name}\" SET default_transaction_isolation = 'serializable';
         ALTER DATABASE \"{name}\" SET idle_session_timeout = '300ms'"
    ))
    .await?;
    let worker = case.serving_worker().await?;
    let producer = case.producer("jfk").await?;
    for n in 0..4 {
        producer.write(&Append { key: "a".to_owned(), n }).await?;
        // Longer than a session may be idle.
        tokio::time::sleep(Duration::from_millis(600)).await;
    }
    let takeovers = worker.log().matches("took over").count();
    ensure!(takeovers == 1, "{takeovers} takeovers\n{}", worker.log_tail());
    Ok(())
}

#[tokio::test]
async fn a_login_that_is_refused_for_a_while_is_waited_for_by_a_worker_that_has_served()
-> Result<()> {
    let case = Case::new("logins", &[]).await?;
    let role = format!("{}_worker", case.name);
    case.execute(&format!("CREATE ROLE {role} LOGIN SUPERUSER")).await?;
    let url = case.stack.primary().url(&case.name).replacen("postgres@", &format!("{role}@"), 1);
    let settings = [("FARWRITE_DATABASE_URL", url.as_str())];
    let worker = case.spawn("run", &[], &settings)?;
    case.publish(&Message::append("a", 1)).await?;
    case.applied("a", 1).await?;
    case.execute(&format!("ALTER ROLE {role} NOLOGIN")).await?;
    case.execute(&format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'"
    ))
    .await?;
    case.until("it is refused", async || {
        ensure!(worker.status()?.is_none(), "it ended\n{}", worker.log_tail());
        Ok(worker.log().contains("the primary refuses this worker"))
    })
    .await?;
    case.publish(&Message::append("a", 2)).await?;
    case.execute(&format!("ALTER ROLE {role} LOGIN")).await?;
    case.applied("a", 2).await?;
    // One that was never let in ends: its configuration is wrong.
    case.execute(&format!("ALTER ROLE {role} NOLOGIN")).await?;
    let refused = case.run_with("run", &[], &settings).await?;
    ensure!(refused.code == Some(2), "{refused:?}");
    worker.kill().await?;
    case.execute(&format!("REASSIGN OWNED BY {role} TO postgres; DROP ROLE {role}")).await
}

#[tokio::test]
async fn a_worker_that_cannot_have_all_of_its_sessions_takes_nothing_over() -> Result<()> {
    // On servers of its own: the limit is the server's, since no other one holds for a superuser.
    let stack = Box::leak(Box::new(Devstack::builder().start().await?));
    let case = Case::on(stack, "few", &[]).await?;
    let limit: i64 = case.count("SELECT current_setting('max_connections')::bigint").await?;
    // All but a few of the server's connections are taken.
    let mut taken = Vec::new();
    for _ in 0..limit - 8 {
        taken.push(case.primary().await?);
    }
    let worker = case.spawn("run", &["--lanes", "8"], &[])?;
    case.until("it has tried for a while", async || {
        ensure!(worker.status()?.is_none(), "it ended\n{}", worker.log_tail());
        Ok(worker.log().matches("waiting, then beginning again").count() >= 3)
    })
    .await?;
    ensure!(!worker.log().contains("took over"), "{}", worker.log_tail());
    drop(taken);
    case.publish(&Message::append("a", 1)).await?;
    case.applied("a", 1).await?;
    ensure!(worker.log().matches("took over").count() == 1, "{}", worker.log_tail());
    Ok(())
}
