//! The subcommand: its flags, and the runs of several seeds.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use clap::{Arg, ArgMatches, Command, value_parser};

use super::{Kind, Report, Settings, print, run};
use crate::args::number;

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
            Arg::new("faults")
                .long("faults")
                .value_name("A,B,…")
                .value_delimiter(',')
                .value_parser(Kind::ALL.map(Kind::word))
                .help("Only these [default: all but broker_restore]"),
        )
        .arg(
            Arg::new("json")
                .long("json")
                .value_name("FILE")
                .default_value("target/farwrite/chaos.json")
                .value_parser(value_parser!(PathBuf))
                .help("Where the report goes"),
        )
        .after_help(AFTER)
}

/// Runs what was asked for; whether all of it is well.
///
/// # Errors
/// When a run comes to no verdict. What ran before is reported all the same.
pub async fn as_told(matches: &ArgMatches) -> Result<bool> {
    let number = |name| matches.get_one::<u64>(name).copied();
    let seconds = match number("minutes") {
        Some(minutes) => minutes * 60,
        None => number("seconds").unwrap_or(60),
    };
    let seeds: Vec<u64> = matches.get_many("seed").into_iter().flatten().copied().collect();
    let words = matches.get_many::<String>("faults").into_iter().flatten();
    let json = matches.get_one::<PathBuf>("json").context("no report")?;
    let folder = json.parent().map(PathBuf::from).unwrap_or_default();
    let this = std::env::current_exe()?;
    let mut reports = Vec::new();
    for seed in seeds {
        let settings = Settings {
            seed,
            duration: Duration::from_secs(seconds),
            clients: u32::try_from(number("clients").unwrap_or(8))?,
            kinds: words.clone().filter_map(|word| Kind::of(word)).collect(),
            history: folder.join(format!("chaos-{seed}.jsonl")),
            programs: this.parent().unwrap_or(&this).to_owned(),
        };
        println!("seed {seed}: {seconds} s");
        let ended = run(&settings).await.with_context(|| format!("seed {seed}"));
        match ended {
            Ok(report) => reports.push(report),
            Err(error) => {
                write(json, &reports)?;
                println!("{}", print(&reports));
                bail!(error);
            }
        }
    }
    ensure!(!reports.is_empty(), "no seed was given");
    write(json, &reports)?;
    println!("{}", print(&reports));
    Ok(reports.iter().all(Report::is_well))
}

fn write(json: &PathBuf, reports: &[Report]) -> Result<()> {
    let text = serde_json::to_string_pretty(reports)?;
    std::fs::write(json, text).with_context(|| json.display().to_string())
}
