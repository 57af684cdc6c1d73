//! The table of what is done with a failure, row by row where it needs PostgreSQL.

use anyhow::{Result, ensure};
use farwrite_devstack::Devstack;
use farwrite_primary_worker::is_own_fault;
use tokio::sync::OnceCell;

use crate::support::{Case, Message};

/// Servers of its own, whose backends may be killed and whose settings changed.
static STACK: OnceCell<Devstack> = OnceCell::const_new();

async fn stack() -> Result<&'static Devstack> {
    STACK.get_or_try_init(|| Devstack::builder().start()).await
}

#[tokio::test]
async fn the_database_and_the_worker_agree_on_what_is_a_commands_own_fault() -> Result<()> {
    let case = Case::new("own_fault", &[]).await?;
    let letters: Vec<char> = ('0'..='9').chain('A'..='Z').collect();
    let mut codes = Vec::new();
    for first in &letters {
        for second in &letters {
            for rest in ["000", "001", "002", "003", "004", "006", "014", "200", "P01", "ZZZ"] {
                codes.push(format!("{first}{second}{rest}"));
            }
        }
    }
    let own: Vec<bool> = sqlx::query_scalar(
        "SELECT farwrite.is_own_fault(c, 'named') FROM unnest($1::text[]) WITH ORDINALITY AS u (c, n) ORDER BY n",
    )
    .bind(&codes)
    .fetch_all(&mut case.primary().await?)
    .await?;
    for (code, own) in codes.iter().zip(own) {
        ensure!(is_own_fault(code) == own, "{code}: the database says {own}");
    }
    Ok(())
}

/// `app.raise` raises the code that its body names, with a constraint.
const RAISE: &str = "
    CREATE FUNCTION app.raise(body jsonb, meta farwrite.meta) RETURNS jsonb LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO app.effects VALUES ('never', 1, meta.id, 1);
        RAISE EXCEPTION 'by test' USING ERRCODE = body->>'code', CONSTRAINT = 'some_constraint',
            DETAIL = 'Key (owner)=(somebody else) is secret.';
    END $$;
    SELECT farwrite.register('app.raise', 'app.raise(jsonb, farwrite.meta)');";

#[tokio::test]
async fn every_class_of_errors_ends_as_its_row_says_alone_and_among_companions() -> Result<()> {
    let case = Case::new("classes", &[]).await?;
    case.execute(RAISE).await?;
    let flags = ["--attempts-max", "3", "--retry-pause-ms", "5"];
    let rows = [
        ("22003", "rejected", "22003"),
        ("23514", "rejected", "23514"),
        ("21000", "rejected", "21000"),
        ("44000", "rejected", "44000"),
        ("P0001", "rejected", "P0001"),
        ("P0002", "rejected", "P0002"),
        ("ZZ123", "rejected", "ZZ123"),
        ("40001", "dead_lettered", "attempts_used_up"),
        ("40P01", "dead_lettered", "attempts_used_up"),
        ("55P03", "dead_lettered", "attempts_used_up"),
        ("57014", "dead_lettered", "attempts_used_up"),
        ("54001", "rejected", "54001"),
        ("XX000", "dead_lettered", "attempts_used_up"),
        ("HV000", "dead_lettered", "attempts_used_up"),
        ("42883", "dead_lettered", "not_ready"),
        ("42P01", "dead_lettered", "not_ready"),
        ("3F000", "dead_lettered", "not_ready"),
        ("0A000", "dead_lettered", "not_ready"),
        ("42804", "dead_lettered", "not_ready"),
        ("2200H", "dead_lettered", "not_ready"),
        ("2D000", "dead_lettered", "cannot_apply"),
        ("25P02", "dead_lettered", "cannot_apply"),
        ("28000", "dead_lettered", "cannot_apply"),
        ("P0004", "dead_lettered", "cannot_apply"),
        ("F0000", "dead_lettered", "cannot_apply"),
    ];
    let raising = |code: &str| {
        let body = serde_json::json!({ "code": code }).to_string();
        Message { body, key: None, ..Message::append("", 0) }.named("app.raise")
    };
    // Among companions: one batch, in which some are good.
    let mut companions = Vec::new();
    for (n, (code, ..)) in rows.iter().enumerate() {
        companions.push(raising(code));
        case.publish(&companions[n]).await?;
        case.publish(&Message::append("a", n as i32)).await?;
    }
    let _worker = case.serving(&[&flags[..], &["--lanes", "1"]].concat()).await?;
    for (message, (code, word, reason)) in companions.iter().zip(rows) {
        let ended = case.ended(message.id).await?;
        ensure!(ended == (word.to_owned(), reason.to_owned()), "{code}: {ended:?}");
    }
    // Alone.
    for (code, word, reason) in rows {
        let message = raising(code);
        case.publish(&message).await?;
        let ended = case.ended(message.id).await?;
        ensure!(ended == (word.to_owned(), reason.to_owned()), "{code} alone: {ended:?}");
    }
    case.settled().await?;
    ensure!(case.effects().await?["a"] == (0..25).collect::<Vec<i32>>());
    ensure!(!case.effects().await?.contains_key("never"), "a refused command has an effect");
    // The constraint is told, another row's data is not.
    let leaks = "SELECT count(*) FROM farwrite.ledger WHERE answer::text LIKE '%secret%'";
    ensure!(case.count(leaks).await? == 0);
    let told = "SELECT count(*) FROM farwrite.ledger WHERE answer->>'code' = '23514' AND answer->>'constraint' = 'some_constraint'";
    ensure!(case.count(told).await? == 2);
    Ok(())
}

#[tokio::test]
async fn an_innocent_command_whose_backend_is_ended_five_times_is_not_blamed() -> Result<()> {
    let case = Case::on(stack().await?, "innocent", &[]).await?;
    let sql = "CREATE SEQUENCE app.begun;
               CREATE FUNCTION app.slow(body jsonb, meta farwrite.meta) RETURNS jsonb LANGUAGE plpgsql AS $$
               BEGIN
                   -- The fourth attempt is let through.
                   IF nextval('app.begun') < 4 THEN PERFORM pg_sleep(60); END IF;
                   RETURN app.append(body, meta);
               END $$;
               SELECT farwrite.register('app.slow', 'app.slow(jsonb, farwrite.meta)')";
    case.execute(sql).await?;
    let slow = Message::append("a", 1).named("app.slow");
    case.publish(&slow).await?;
    case.publish(&Message::append("a", 2)).await?;
    let worker = case.serving(&[]).await?;
    for _ in 0..3 {
        let ended = "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity
                     WHERE wait_event = 'PgSleep' AND datname = current_database()";
        case.until("its backend is ended", async || Ok(case.count(ended).await? == 1)).await?;
    }
    case.settled().await?;
    ensure!(case.ended(slow.id).await?.0 == "applied", "{}", worker.log_tail());
    ensure!(case.effects().await?["a"] == [1, 2]);
    Ok(())
}

#[tokio::test]
async fn an_error_that_looks_like_the_primarys_is_its_commands_while_the_connection_lives()
-> Result<()> {
    let case = Case::on(stack().await?, "looks", &[]).await?;
    // A limit of temporary files (53400) is of the class of a full disk.
    let sql = format!(
        "CREATE FUNCTION app.sort(body jsonb, meta farwrite.meta) RETURNS jsonb LANGUAGE plpgsql AS $$
         BEGIN
             PERFORM count(*) FROM (SELECT n FROM generate_series(1, 200000) n ORDER BY md5(n::text)) s;
             RETURN app.append(body, meta);
         END $$;
         SELECT farwrite.register('app.sort', 'app.sort(jsonb, farwrite.meta)');
         ALTER DATABASE {0} SET temp_file_limit = '64kB'; ALTER DATABASE {0} SET work_mem = '64kB'",
        case.name
    );
    case.execute(RAISE).await?;
    case.execute(&sql).await?;
    let worker = case.serving(&["--lanes", "2", "--retry-pause-ms", "50"]).await?;
    let sort = Message::append("a", 1).named("app.sort");
    case.publish(&sort).await?;
    let codes =
        ["08001", "08006", "53000", "53100", "53300", "57000", "57P03", "58030", "58P01", "25006"];
    let raising = codes.map(|code| {
        let body = serde_json::json!({ "code": code }).to_string();
        Message { body, key: Some(format!("r{code}")), ..Message::append("", 0) }.named("app.raise")
    });
    for (n, message) in (0..).zip(&raising) {
        case.publish(message).await?;
        case.publish(&Message::append("b", n)).await?;
    }
    case.parked("retry", 1 + i64::try_from(codes.len())?).await?;
    case.applied("b", 9).await?;
    ensure!(case.effects().await?["b"] == (0..10).collect::<Vec<i32>>());
    ensure!(worker.log().matches("took over").count() == 1, "{}", worker.log_tail());
    case.execute(&format!("ALTER DATABASE {} RESET temp_file_limit", case.name)).await?;
    for message in &raising {
        let id = message.id.to_string();
        case.run("cancel", &[&id, "--reason", "by test"]).await?.ended(0)?;
    }
    // The limit is a session's: a new one has it no longer.
    worker.terminate(crate::support::DEADLINE).await?;
    let _worker = case.serving(&["--retry-pause-ms", "50"]).await?;
    case.settled().await?;
    ensure!(case.ended(sort.id).await?.0 == "applied");
    Ok(())
}

#[tokio::test]
async fn commits_wait_for_the_disk_whatever_the_server_is_set_to() -> Result<()> {
    let case = Case::on(stack().await?, "durable", &[]).await?;
    let sql = format!(
        "CREATE FUNCTION app.setting(body jsonb) RETURNS jsonb LANGUAGE sql AS $$
             SELECT to_jsonb(current_setting('synchronous_commit')) $$;
         SELECT farwrite.register('app.setting', 'app.setting(jsonb)');
         ALTER DATABASE {} SET synchronous_commit = off",
        case.name
    );
    case.execute(&sql).await?;
    let worker = case.serving(&["--lanes", "1"]).await?;
    let setting = async || {
        let messages = [0, 1].map(|n| Message::append("a", n).named("app.setting"));
        for message in &messages {
            case.publish(message).await?;
        }
        case.settled().await?;
        for message in &messages {
            let told = case.run("find", &[&message.id.to_string(), "--json"]).await?.ended(0)?;
            ensure!(told.out.contains("\"output\":\"on\""), "{told:?}");
        }
        Ok(())
    };
    setting().await?;
    let reload = "SELECT pg_reload_conf()";
    case.execute("ALTER SYSTEM SET synchronous_commit = off").await?;
    case.execute(reload).await?;
    setting().await?;
    case.execute("ALTER SYSTEM RESET synchronous_commit").await?;
    case.execute(reload).await?;
    ensure!(worker.status()?.is_none(), "{}", worker.log_tail());
    Ok(())
}

#[tokio::test]
async fn a_primary_that_becomes_read_only_makes_the_worker_wait() -> Result<()> {
    let case = Case::on(stack().await?, "read_only", &[]).await?;
    let worker = case.serving(&[]).await?;
    case.publish(&Message::append("a", 1)).await?;
    case.settled().await?;
    let read_only = format!(
        "ALTER DATABASE {0} SET default_transaction_read_only = on;
         SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'farwrite%' AND datname = '{0}'",
        case.name
    );
    case.execute(&read_only).await?;
    case.publish(&Message::append("a", 2)).await?;
    case.until("the worker waits", async || {
        Ok(worker.log().matches("waiting, then beginning again").count() > 2)
    })
    .await?;
    // From another database: this one is read-only.
    let sql = format!("ALTER DATABASE {} RESET default_transaction_read_only", case.name);
    case.stack.primary().execute("postgres", &sql).await?;
    case.check_model().await?;
    ensure!(worker.status()?.is_none(), "{}", worker.log_tail());
    Ok(())
}
