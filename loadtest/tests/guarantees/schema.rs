//! What `migrate` installs, against the text of it that is under version control; and how functions
//! of another program are met.

use std::{path::Path, process::Stdio};

use anyhow::{Result, ensure};
use farwrite_devstack::Tools;
use tokio::process::Command;

use crate::support::{Case, DEADLINE};

const SNAPSHOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../schemas/sql/schema.sql");

#[tokio::test]
async fn a_migrated_database_is_what_the_snapshot_of_the_schema_says() -> Result<()> {
    let case = Case::new("snapshot", &[]).await?;
    // Another one, where no function of an app is in the dispatchers.
    let bare = format!("{}_bare", case.name);
    case.stack.primary().create_database(&bare).await?;
    let url = case.stack.primary().url(&bare);
    case.run_with("migrate", &[], &[("FARWRITE_DATABASE_URL", &url)]).await?.ended(0)?;
    let dumped = dump(&url).await?;
    if std::env::var_os("FARWRITE_BLESS").is_some() {
        std::fs::write(SNAPSHOT, &dumped)?;
    }
    let kept = std::fs::read_to_string(SNAPSHOT).unwrap_or_default();
    let differs = dumped.lines().zip(kept.lines()).position(|(dumped, kept)| dumped != kept);
    ensure!(
        dumped == kept,
        "schemas/sql/schema.sql is not what `migrate` makes (line {}); where the change is meant, run this test with FARWRITE_BLESS=1",
        differs.unwrap_or_else(|| dumped.lines().count().min(kept.lines().count())) + 1
    );
    Ok(())
}

/// The schema as `pg_dump` of the server's own version tells it, without what differs between
/// versions.
async fn dump(url: &str) -> Result<String> {
    let program = Tools::locate()?.pg_bin.join("pg_dump");
    ensure!(Path::new(&program).is_file(), "{} is not there", program.display());
    let mut command = Command::new(program);
    command.args(["--schema-only", "--no-owner", "--no-privileges", "--schema=farwrite", url]);
    let output = command.stdin(Stdio::null()).output().await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (mut text, mut is_blank) = (String::new(), true);
    for line in String::from_utf8(output.stdout)?.lines() {
        let of_this_run = ["SET ", "SELECT pg_catalog.set_config", "\\", "-- Name: ", "-- Dumped "]
            .iter()
            .any(|start| line.starts_with(start));
        if of_this_run || line == "--" || line.starts_with("-- PostgreSQL database dump") {
            continue;
        }
        // One blank line where there were several.
        if !(is_blank && line.is_empty()) {
            text.push_str(line);
            text.push('\n');
        }
        is_blank = line.is_empty();
    }
    Ok(text)
}

#[tokio::test]
async fn functions_of_an_older_program_are_replaced_and_those_of_a_newer_one_stay() -> Result<()> {
    let case = Case::new("functions", &[]).await?;
    let own = "SELECT hash FROM farwrite.function_installs ORDER BY install_id DESC LIMIT 1";
    let mut connection = case.primary().await?;
    let hash: String = sqlx::query_scalar(own).fetch_one(&mut connection).await?;

    // As an older program left them: another text, other parameters, and one that is gone by now.
    case.execute(
        "UPDATE farwrite.function_installs
         SET hash = 'of an older program', signatures = signatures || 'farwrite.gone()'::text;
         DROP FUNCTION farwrite.outcome_of(uuid);
         CREATE FUNCTION farwrite.outcome_of(p_id uuid) RETURNS text LANGUAGE sql RETURN 'old';
         CREATE FUNCTION farwrite.gone() RETURNS integer LANGUAGE sql RETURN 1;
         CREATE FUNCTION farwrite.of_the_app() RETURNS integer LANGUAGE sql RETURN 1",
    )
    .await?;
    let ran = case.run("migrate", &["--check"]).await?.ended(5)?;
    ensure!(ran.out.contains("functions pending"), "{ran:?}");
    let worker = case.worker()?;
    let status = worker.wait(DEADLINE).await?;
    ensure!(status.code() == Some(2), "{status}\n{}", worker.log_tail());
    ensure!(worker.log().contains("run `farwrite worker migrate`"), "{}", worker.log_tail());
    case.run("migrate", &[]).await?.ended(0)?;
    case.run("migrate", &["--check"]).await?.ended(0)?;
    let gone = "SELECT count(*) FROM pg_proc WHERE proname = 'gone'";
    ensure!(case.count(gone).await? == 0);
    ensure!(case.count("SELECT farwrite.of_the_app()::bigint").await? == 1);
    ensure!(case.count("SELECT count(*) FROM farwrite.outcome_of(gen_random_uuid())").await? == 0);
    let registered = "SELECT count(*) FROM farwrite.functions WHERE name LIKE 'row.%'";
    ensure!(case.count(registered).await? == 4);

    // A newer program was here: an older worker goes on, and its `migrate` leaves them be.
    case.execute(
        "INSERT INTO farwrite.function_installs (revision, hash, signatures)
         VALUES (1000000, 'of a newer program', '{}')",
    )
    .await?;
    let ran = case.run("migrate", &["--check"]).await?.ended(0)?;
    ensure!(ran.out.contains("functions a newer program's"), "{ran:?}");
    case.run("migrate", &[]).await?.ended(0)?;
    ensure!(sqlx::query_scalar::<_, String>(own).fetch_one(&mut connection).await? != hash);
    let worker = case.serving_worker().await?;
    worker.terminate(DEADLINE).await?;
    Ok(())
}
