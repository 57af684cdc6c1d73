//! What an operator is told: the state of everything, what there is to migrate, and that a program is
//! too old.

use anyhow::{Context, Result, ensure};
use farwrite_primary_worker::Config;
use farwrite_schemas::CommandId;
use serde_json::json;

use crate::support::{ALL_WAIT, Case, DEADLINE, Message};

#[tokio::test]
async fn status_and_outcome_say_where_everything_stands() -> Result<()> {
    let case = Case::new("status", &[]).await?;
    let worker = case.serving(&ALL_WAIT).await?;
    let applied = Message::append("a", 1);
    let refused = Message::refused("a", 2);
    let waiting = Message { name: "app.unknown".to_owned(), ..Message::append("b", 3) };
    let broken = Message { body: "{".to_owned(), ..Message::append("c", 4) };
    for message in [&applied, &refused, &waiting, &broken] {
        case.publish(message).await?;
    }
    case.read().await?;
    case.run("pause", &["--key", "z", "--reason", "why not"]).await?.ended(0)?;

    let outcome = async |message: &Message, environment: &[(&str, &str)]| {
        let id = message.id.to_string();
        let ran = case.run_with("find", &[&id, "--json"], environment).await?.ended(0)?;
        ran.objects()?.pop().context("nothing")
    };
    let known = outcome(&applied, &[]).await?;
    ensure!(known["status"] == "applied" && known["output"] == json!({ "place": 1 }), "{known}");
    ensure!(known["sequence"] == 1 && known["attempts"] == 1, "{known}");
    ensure!(known["stream"] == format!("farwrite-{}", case.name), "{known}");
    ensure!(known["published_at"].is_string() && known["settled_at"].is_string(), "{known}");
    let known = outcome(&refused, &[]).await?;
    ensure!(known["status"] == "rejected" && known["error"]["code"] == "P0001", "{known}");
    let known = outcome(&waiting, &[]).await?;
    ensure!(known["status"] == "parked" && known["reason"] == "unknown_command", "{known}");
    let known = outcome(&broken, &[]).await?;
    ensure!(known["status"] == "dead_lettered" && known["error"]["reason"] == "not_json");
    let replica = case.stack.replica("jfk")?;
    replica.wait_caught_up(case.stack.primary(), DEADLINE).await?;
    let url = replica.url(&case.name);
    let there = [("FARWRITE_DATABASE_URL", url.as_str())];
    ensure!(outcome(&applied, &there).await?["status"] == "applied");
    let nobody = CommandId::now().to_string();
    let ran = case.run_with("find", &[&nobody], &there).await?.ended(1)?;
    ensure!(ran.out.contains("is not known here") && ran.out.contains("replica"), "{ran:?}");
    // An act on a replica is refused before it is tried.
    case.run_with("cancel", &[&nobody, "--reason", "no"], &there).await?.ended(2)?;

    let status = async |code, environment: &[(&str, &str)]| {
        let ran = case.run_with("status", &["--json"], environment).await?.ended(code)?;
        ran.objects()?.pop().context("nothing")
    };
    let now = status(0, &[]).await?;
    ensure!(
        now["owner"]["lane_connections"] == Config::LANES && now["owner"]["released_at"].is_null(),
        "{now}"
    );
    ensure!(now["streams"][0]["last_sequence"] == 4, "{now}");
    ensure!(now["streams"][0]["lag_commands"] == 0 && now["streams"][0]["lag_seconds"] == 0.0);
    ensure!(now["parked"][0]["reason"] == "unknown_command" && now["parked"][0]["commands"] == 1);
    ensure!(now["dead_letters"][0]["reason"] == "not_json", "{now}");
    ensure!(now["pauses"][0]["key"] == "z" && now["schema"]["required_protocol"] == 1, "{now}");

    worker.terminate(DEADLINE).await?;
    for n in 5..8 {
        case.publish(&Message::append("a", n)).await?;
    }
    let now = status(0, &[]).await?;
    ensure!(now["owner"]["released_at"].is_string(), "{now}");
    ensure!(now["streams"][0]["lag_commands"] == 3, "{now}");
    ensure!(now["streams"][0]["lag_seconds"].as_f64().is_some_and(|lag| lag > 0.0), "{now}");
    let away = status(1, &[("FARWRITE_NATS_URL", "nats://127.0.0.1:1")]).await?;
    ensure!(away["nats_error"].is_string() && away["streams"][0]["low_water"] == 4, "{away}");
    ensure!(away["streams"][0]["last_sequence"].is_null(), "{away}");
    ensure!(away["parked"][0]["commands"] == 1, "{away}");
    let ran = case.run("status", &[]).await?.ended(0)?;
    ensure!(ran.out.contains("lag         3 commands, the oldest "), "{ran:?}");

    let stream = case.context.get_stream(format!("farwrite-{}", case.name)).await?;
    stream.purge().sequence(7).await?;
    let now = status(1, &[]).await?;
    ensure!(now["streams"][0]["lag_seconds"].is_number(), "{now}");
    let problem = now["streams"][0]["problem"].as_str().unwrap_or_default();
    ensure!(problem.contains("begins at sequence 7"), "{now}");
    stream.purge().await?;
    let now = status(1, &[]).await?;
    ensure!(now["streams"][0]["lag_seconds"].is_null(), "{now}");
    Ok(())
}

#[tokio::test]
async fn migrate_check_says_what_there_is_to_do_and_does_none_of_it() -> Result<()> {
    let case = Case::new("check", &[]).await?;
    let ran = case.run("migrate", &["--check"]).await?.ended(0)?;
    ensure!(ran.out.ends_with("up to date\n"), "{ran:?}");

    let empty = format!("{}_empty", case.name);
    case.stack.primary().create_database(&empty).await?;
    let url = case.stack.primary().url(&empty);
    let ran = case
        .run_with("migrate", &["--check"], &[("FARWRITE_DATABASE_URL", &url)])
        .await?
        .ended(5)?;
    ensure!(ran.out.contains("version 0") && ran.out.contains("pending   1 "), "{ran:?}");
    let mut connection = case.stack.primary().connect(&empty).await?;
    let schemas: i64 =
        sqlx::query_scalar("SELECT count(*) FROM pg_namespace WHERE nspname = 'farwrite'")
            .fetch_one(&mut connection)
            .await?;
    ensure!(schemas == 0);

    let other = [("FARWRITE_STREAM", "not-there")];
    let ran = case.run_with("migrate", &["--check"], &other).await?.ended(5)?;
    ensure!(ran.out.contains("not-there: is missing"), "{ran:?}");
    ensure!(case.context.get_stream("not-there").await.is_err());

    let away = [("FARWRITE_NATS_URL", "nats://127.0.0.1:1")];
    case.run_with("migrate", &["--check"], &away).await?.ended(1)?;

    let name = format!("farwrite-{}", case.name);
    let mut config = case.context.get_stream(&name).await?.cached_info().config.clone();
    config.max_age = std::time::Duration::from_secs(3_600);
    case.context.update_stream(&config).await?;
    let ran = case.run("migrate", &["--check"]).await?.ended(2)?;
    ensure!(ran.out.contains("max_age is set"), "{ran:?}");

    // Made again: another stream of that name.
    case.context.delete_stream(&name).await?;
    config.max_age = std::time::Duration::ZERO;
    case.context.create_stream(&config).await?;
    case.run("migrate", &["--check"]).await?.ended(4)?;
    Ok(())
}

#[tokio::test]
async fn a_worker_runs_on_a_newer_schema_unless_that_refuses_it() -> Result<()> {
    let case = Case::new("newer", &[]).await?;
    case.execute(
        "INSERT INTO farwrite.migrations (version, description, success, checksum, execution_time)
         VALUES (1000, 'of a newer program', true, '\\x00', 1)",
    )
    .await?;
    let worker = case.serving_worker().await?;
    case.publish(&Message::append("a", 1)).await?;
    case.check_model().await?;
    worker.terminate(DEADLINE).await?;
    case.run("migrate", &["--check"]).await?.ended(0)?;

    case.execute("CREATE OR REPLACE FUNCTION farwrite.requires_protocol() RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN 2").await?;
    let worker = case.worker()?;
    let status = worker.wait(DEADLINE).await?;
    ensure!(status.code() == Some(2), "{status}\n{}", worker.log_tail());
    ensure!(worker.log().contains("upgrade the worker"), "{}", worker.log_tail());
    case.run("dead-letters", &["list"]).await?.ended(2)?;
    case.run("migrate", &["--check"]).await?.ended(2)?;
    Ok(())
}
