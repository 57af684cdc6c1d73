//! The subcommand: its flags, and the runs of several seeds.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use clap::{Arg, ArgMatches, Command, value_parser};

use super::{
    fault::FaultKind,
    report::{ChaosReport, print},
    run::run,
    schedule::Schedule,
    settings::ChaosSettings,
};
use crate::kit::{file, number, write_file};

/// What `--help` adds.
const AFTER: &str = "\
A seed draws every choice of the faults and the clients; what the machine does between them it does not,
so a seed tells a schedule, not a run. Histories stay in the folder of the report, for `loadtest check`.

The last line is `chaos: PASS` or `chaos: FAIL`.

Exit status:
  0  no law was violated
  1  one was, or a run came to no verdict
  2  wrong arguments";

/// `loadtest chaos`.
#[must_use]
pub fn command() -> Command {
    Command::new("chaos")
        .about("Everything fails that can, while clients write and read; the checker judges")
        .arg(
            Arg::new("seed")
                .long("seed")
                .value_name("N,N,…")
                .default_value("1")
                .value_delimiter(',')
                .value_parser(value_parser!(u64))
                .help("One run for each, with its own servers"),
        )
        .arg(number("seconds", "60", 1, "How long each runs; servers and settling come on top"))
        .arg(
            Arg::new("minutes")
                .long("minutes")
                .value_name("N")
                .value_parser(value_parser!(u64).range(1..=100_000))
                .conflicts_with("seconds")
                .help("The same in minutes"),
        )
        .arg(number("clients", "8", 1, "How many clients write and read at once"))
        .arg(
            Arg::new("schedule")
                .long("schedule")
                .value_name("NAME")
                .default_value(Schedule::Everything.as_str())
                .value_parser(Schedule::ALL.map(Schedule::as_str))
                .help("Everything; or users who hop between regions while replicas and links fail"),
        )
        .arg(
            Arg::new("faults")
                .long("faults")
                .value_name("A,B,…")
                .value_delimiter(',')
                .value_parser(FaultKind::ALL.map(FaultKind::as_str))
                .help("Only these [default: the schedule's; everything is all but broker_restore]"),
        )
        .arg(file("json", "Where the report goes").default_value("target/farwrite/chaos.json"))
        .after_help(AFTER)
}

/// Runs what was asked for; whether all of it is well.
///
/// # Errors
/// When a run comes to no verdict. What ran before is reported all the same.
pub async fn run_command(matches: &ArgMatches) -> Result<bool> {
    let number = |name| matches.get_one::<u64>(name).copied();
    let seconds = match number("minutes") {
        Some(minutes) => minutes * 60,
        None => number("seconds").unwrap_or(60),
    };
    let seeds: Vec<u64> = matches.get_many("seed").into_iter().flatten().copied().collect();
    let faults = matches.get_many::<String>("faults");
    let faults: Option<Vec<FaultKind>> =
        faults.map(|names| names.filter_map(|name| FaultKind::of(name)).collect());
    let schedule = matches.get_one::<String>("schedule").and_then(|name| Schedule::of(name));
    let schedule = schedule.context("no schedule")?;
    let json = matches.get_one::<PathBuf>("json").context("no report")?;
    let folder = json.parent().map(PathBuf::from).unwrap_or_default();
    let mut reports = Vec::new();
    for seed in seeds {
        let settings = ChaosSettings {
            seed,
            duration: Duration::from_secs(seconds),
            clients: u32::try_from(number("clients").unwrap_or(8))?,
            schedule,
            faults: faults.clone(),
            history: folder.join(format!("chaos-{seed}.jsonl")),
        };
        println!("seed {seed}: {seconds} s");
        match run(&settings).await.with_context(|| format!("seed {seed}")) {
            Ok(report) => reports.push(report),
            Err(error) => {
                write(json, &reports)?;
                bail!(error);
            }
        }
    }
    ensure!(!reports.is_empty(), "no seed was given");
    write(json, &reports)?;
    Ok(reports.iter().all(ChaosReport::is_well))
}

fn write(json: &Path, reports: &[ChaosReport]) -> Result<()> {
    write_file(json, &serde_json::to_string_pretty(reports)?)?;
    println!("{}", print(reports));
    Ok(())
}
