//! The subcommand: its flags, and the run of its scenarios.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::{Arg, ArgMatches, Command, value_parser};
use farwrite_primary_worker::Config;

use super::{
    html, machine,
    report::BenchReport,
    scenario::{self, BenchSettings, Scenario, Weighed, weigh},
    table,
};
use crate::kit::{file, number, write_file};

/// What `--help` adds.
const AFTER: &str = "\
Every scenario warms up, and alternates with its baselines; figures of one run compare with each other
and with no other run's. Build with --release: a debug build measures itself.

The last line is `bench: N of M targets met`.

Exit status:
  0  every scenario came to its end
  1  one did not
  2  wrong arguments";

/// `loadtest bench`.
#[must_use]
pub fn command() -> Command {
    Command::new("bench")
        .about("Measures Farwrite beside its baselines")
        .arg(
            Arg::new("scenario")
                .long("scenario")
                .value_name("A,B,…")
                .value_delimiter(',')
                .value_parser(Scenario::ALL.map(Scenario::name))
                .help("These only [default: all]"),
        )
        .arg(number("seconds", "2", 1, "How long a contestant runs in one round"))
        .arg(number("rounds", "7", 1, "How often contestants alternate; targets are judged from 7"))
        .arg(number("commands", "200000", 1, "Commands in a stream that is drained"))
        .arg(number("rtt-ms", "80", 1, "Round trip between the primary's region and the far one"))
        .arg(
            file("json", "Where the report goes as JSON")
                .default_value("target/farwrite/bench.json"),
        )
        .arg(
            file("html", "Where the report goes as a page with pictures")
                .default_value("target/farwrite/bench.html"),
        )
        .after_help(AFTER)
}

/// The part of `bench` that runs in a process of its own.
#[must_use]
pub fn weigh_command() -> Command {
    Command::new("bench-weigh")
        .hide(true)
        .about("Weighs tasks of one kind, for `bench --scenario waiters`")
        .arg(Arg::new("kind").required(true).value_parser(Weighed::ALL.map(Weighed::as_str)))
        .arg(Arg::new("tasks").required(true).value_parser(value_parser!(u64)))
}

/// Runs what the flags say.
///
/// # Errors When a scenario fails. The findings of the scenarios before are written all the same.
pub async fn run_command(matches: &ArgMatches) -> Result<()> {
    let number = |name| matches.get_one::<u64>(name).copied().unwrap_or(1);
    let path = |name| matches.get_one::<PathBuf>(name).cloned().unwrap_or_default();
    let settings = BenchSettings {
        seconds: number("seconds"),
        rounds: usize::try_from(number("rounds"))?,
        rtt: Duration::from_millis(number("rtt-ms")),
        commands: number("commands"),
    };
    let named: Vec<Scenario> = matches
        .get_many::<String>("scenario")
        .map(|names| names.filter_map(|name| Scenario::of(name)).collect())
        .unwrap_or_else(|| Scenario::ALL.to_vec());
    if cfg!(debug_assertions) {
        eprintln!("this is a debug build: it measures itself");
    }
    let mut report = begin(&settings).await?;
    let mut result = Ok(());
    for scenario in named {
        eprintln!("{} …", scenario.name());
        let began = Instant::now();
        match scenario.run(&settings).await.with_context(|| scenario.name().to_owned()) {
            Ok(found) => {
                found.rows.iter().for_each(|row| eprint!("  {}", table::line(row)));
                eprintln!("  {:.0} s", began.elapsed().as_secs_f64());
                report.rows.extend(found.rows);
                report.latencies.extend(found.latencies);
                report.timeline = found.timeline.or(report.timeline);
            }
            Err(error) => {
                result = Err(error);
                break;
            }
        }
    }
    write_file(&path("json"), &serde_json::to_string_pretty(&report)?)?;
    write_file(&path("html"), &html::page(&report))?;
    result?;
    println!("{}", table::table(&report));
    println!("{} and {}", path("json").display(), path("html").display());
    let judged: Vec<bool> = report.rows.iter().filter_map(|row| row.met).collect();
    let met = judged.iter().filter(|met| **met).count();
    println!("bench: {met} of {} targets met", judged.len());
    Ok(())
}

async fn begin(settings: &BenchSettings) -> Result<BenchReport> {
    let stack = scenario::servers().await?;
    let (versions, mut said) = machine::ask(&stack).await?;
    stack.shutdown().await?;
    let mut note = |name: &str, value: String| said.insert(name.to_owned(), value);
    note("broker", "one node, syncing every message; `publish` alone: every 2 minutes".to_owned());
    note("rounds", settings.rounds.to_string());
    note("seconds a turn", settings.seconds.to_string());
    note("commands in a full stream", settings.commands.to_string());
    note("far region's round trip", format!("{} ms", settings.rtt.as_millis()));
    note("hot_standby_feedback", "off; on for `write`, for all contestants".to_owned());
    let (lanes, batch) = (Config::LANES, Config::BATCH_MAX_COMMANDS);
    note("worker", format!("its defaults: {lanes} lanes, batches of at most {batch}"));
    Ok(BenchReport {
        machine: machine::look()?,
        versions,
        settings: said,
        ..BenchReport::default()
    })
}

/// Weighs one kind of tasks, and prints the figures for the process that compares.
///
/// # Errors
/// When a server does not start, or a waiter is not woken, or one is left.
pub async fn run_weigh_command(matches: &ArgMatches) -> Result<()> {
    let kind = matches.get_one::<String>("kind").map_or("", String::as_str);
    let kind =
        Weighed::ALL.into_iter().find(|weighed| weighed.as_str() == kind).context("a kind")?;
    let tasks = matches.get_one::<u64>("tasks").copied().unwrap_or_default();
    let (bytes, us) = weigh(tasks, kind).await?;
    println!("{bytes} {us}");
    Ok(())
}
