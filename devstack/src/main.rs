//! `devstack`: a stack to play with.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use clap::{Arg, ArgMatches, Command};
use farwrite_devstack::Devstack;
use tokio::signal::unix::{SignalKind, signal};

fn command() -> Command {
    let up = Command::new("up")
        .about("Starts NATS, a primary in the first region and a replica in each other one; stops on Ctrl-C, SIGTERM or when its parent dies")
        .arg(Arg::new("regions").long("regions").value_name("A,B,…").default_value("ewr,jfk,lga").help("The regions, the primary's first"))
        .arg(Arg::new("rtt-ms").long("rtt-ms").value_name("MS").default_value("0").value_parser(clap::value_parser!(u64).range(0..=10_000)).help("Round trip between the first region and each other one"))
        .arg(Arg::new("database").long("database").value_name("NAME").default_value("app").help("A database to make"))
        .after_help("Prints NAME=value lines, then `# ready`:\n  FARWRITE_NATS_URL, FARWRITE_DATABASE_URL (the primary), and for each region\n  FARWRITE_NATS_URL_<REGION>, FARWRITE_REPLICA_URL_<REGION>.\n\nExit status: 0 stopped, 1 a server did not start, 2 wrong arguments.");
    Command::new("devstack")
        .about("Real NATS and PostgreSQL with replicas on this machine, for development")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("fetch")
                .about("Fetches the pinned servers into .tools; quick when they are there"),
        )
        .subcommand(up)
}

fn main() -> ExitCode {
    // First of all: a parent that dies while this starts must be noticed too.
    let parent = std::os::unix::process::parent_id();
    let matches = command().get_matches();
    let done = match matches.subcommand() {
        Some(("up", matches)) => up(matches, parent),
        _ => farwrite_devstack::fetch(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn up(matches: &ArgMatches, parent: u32) -> Result<()> {
    let regions = matches.get_one::<String>("regions").context("regions")?;
    let rtt = Duration::from_millis(*matches.get_one::<u64>("rtt-ms").context("rtt-ms")?);
    let database = matches.get_one::<String>("database").context("database")?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let stack = tokio::select! {
        stack = start(regions, rtt, database) => stack?,
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
    };
    print(&stack, database)?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        () = orphaned(parent) => {}
    }
    stack.shutdown().await
}

async fn start(regions: &str, rtt: Duration, database: &str) -> Result<Devstack> {
    let stack =
        Devstack::builder().regions(regions.split(',').map(str::trim)).rtt(rtt).start().await?;
    stack.primary().create_database(database).await?;
    Ok(stack)
}

fn print(stack: &Devstack, database: &str) -> Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    writeln!(out, "FARWRITE_NATS_URL={}", stack.nats().url())?;
    writeln!(out, "FARWRITE_DATABASE_URL='{}'", stack.primary().url(database))?;
    for region in stack.regions() {
        let name = region.to_uppercase().replace('-', "_");
        writeln!(out, "FARWRITE_NATS_URL_{name}={}", stack.nats_url(region)?)?;
        let server = stack.server(region)?;
        writeln!(out, "FARWRITE_REPLICA_URL_{name}='{}'", server.url(database))?;
    }
    writeln!(out, "# ready")?;
    Ok(out.flush()?)
}

/// Returns when the parent has died. One that was started without a parent never is orphaned.
async fn orphaned(parent: u32) {
    while parent == 1 || std::os::unix::process::parent_id() == parent {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
