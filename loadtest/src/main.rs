//! `loadtest`: drives Farwrite as a whole, with real servers and the real programs.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Arg, ArgMatches, Command};
use farwrite_loadtest::{
    args::number,
    bench, chaos,
    demo::{self, HandlerKind, Settings},
    hop,
};

/// How much of the text of `--help` clap cannot know.
const AFTER_DEMO: &str = "\
The programs primary-worker, lsn-watcher and flights-worker are looked for beside this one.

The last line is `demo: PASS`, or `demo: FAIL` with the reason.

Exit status:
  0  every verdict holds
  1  one does not, the file has bad rows, a server did not start, or it was interrupted
  2  wrong arguments";

const AFTER_CHECK: &str = "\
The last line is `check: PASS`, or `check: FAIL` with the number of violations.

Exit status:
  0  no law was broken
  1  one was, or the history is incomplete or cannot be read
  2  wrong arguments";

fn command() -> Command {
    let demo = Command::new("demo")
        .about("Replays real departures from New York's airports, and has SQL judge every claim")
        .arg(
            Arg::new("flights")
                .long("flights")
                .value_name("FILE")
                .value_parser(clap::value_parser!(PathBuf))
                .help("The departures: CSV of the form of nycflights13's flights, may be gzipped [default: January 2013, from the repository]"),
        )
        .arg(
            Arg::new("regions")
                .long("regions")
                .value_name("A,B,…")
                .default_value("ewr,jfk,lga")
                .help("The regions, the primary's first; the airports EWR, JFK and LGA publish in the regions of their names"),
        )
        .arg(
            Arg::new("rtt-ms")
                .long("rtt-ms")
                .value_name("MS")
                .default_value("30")
                .value_parser(clap::value_parser!(u64).range(0..=10_000))
                .help("Round trip between the primary's region and each other one"),
        )
        .arg(
            Arg::new("handler")
                .long("handler")
                .value_name("KIND")
                .default_value("sql")
                .value_parser(["sql", "rust"])
                .help("What applies the commands: functions of the database in primary-worker, or Rust in flights-worker"),
        )
        .arg(
            Arg::new("json")
                .long("json")
                .value_name("FILE")
                .default_value("target/farwrite/demo.json")
                .value_parser(clap::value_parser!(PathBuf))
                .help("Where every printed figure goes as JSON"),
        )
        .after_help(AFTER_DEMO);
    let hop = Command::new("hop")
        .about(
            "Users hop between regions while servers fail, and check that they see what they saw",
        )
        .arg(number("seconds", "60", 0, "For how long"))
        .arg(number("users", "12", 0, "How many hop at once"))
        .arg(number(
            "rtt-ms",
            "30",
            0,
            "Round trip between the primary's region and each other one",
        ))
        .arg(number("seed", "0", 0, "What the choices are drawn from; 0 for a new one"))
        .arg(
            Arg::new("calm")
                .long("calm")
                .action(clap::ArgAction::SetTrue)
                .help("Disturb neither servers nor programs"),
        );
    Command::new("loadtest")
        .about("Drives Farwrite as a whole, with real servers and the real programs")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(demo)
        .subcommand(hop)
        .subcommand(chaos::command())
        .subcommand(bench::command())
        .subcommand(bench::weigh_command())
        .subcommand(check_command())
}

fn check_command() -> Command {
    Command::new("check")
        .about("Checks a history: what clients were told against what was there in the end")
        .arg(
            Arg::new("history")
                .value_name("HISTORY")
                .required(true)
                .value_parser(clap::value_parser!(PathBuf))
                .help("The history, as docs/chaos.md describes it"),
        )
        .arg(
            Arg::new("json")
                .long("json")
                .value_name("FILE")
                .value_parser(clap::value_parser!(PathBuf))
                .help("Where the report goes as JSON"),
        )
        .after_help(AFTER_CHECK)
}

fn main() -> ExitCode {
    let matches = command().get_matches();
    let work = async {
        match matches.subcommand() {
            Some(("demo", matches)) => demo::run(&settings_of(matches)).await,
            Some(("hop", matches)) => done(hop_as_told(matches).await),
            Some(("chaos", matches)) => done(chaos::as_told(matches).await),
            Some(("check", matches)) => {
                let path = |name| matches.get_one::<PathBuf>(name);
                let history = path("history").map(PathBuf::as_path).unwrap_or(Path::new(""));
                let json = path("json").map(PathBuf::as_path);
                done(farwrite_checker::run(history, json, &mut std::io::stdout()))
            }
            Some(("bench", matches)) => done(bench::as_told(matches).await.map(|()| true)),
            Some(("bench-weigh", matches)) => {
                done(bench::weigh_as_told(matches).await.map(|()| true))
            }
            _ => false,
        }
    };
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) if runtime.block_on(work) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: the runtime does not start: {error}");
            ExitCode::FAILURE
        }
    }
}

fn done(result: anyhow::Result<bool>) -> bool {
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        false
    })
}

async fn hop_as_told(matches: &ArgMatches) -> anyhow::Result<bool> {
    let number = |name| matches.get_one::<u64>(name).copied().unwrap_or_default();
    let this = std::env::current_exe()?;
    let settings = hop::Settings {
        duration: Duration::from_secs(number("seconds")),
        users: u32::try_from(number("users").max(1))?,
        rtt: Duration::from_millis(number("rtt-ms")),
        disturbed: !matches.get_flag("calm"),
        programs: this.parent().unwrap_or(&this).to_owned(),
        seed: if number("seed") == 0 { fastrand::u64(1..) } else { number("seed") },
    };
    println!("seed {}", settings.seed);
    let report = hop::run(&settings).await?;
    let hop::Report { writes, reads, on_primary, stale, went_back, retries, disturbances } = report;
    println!(
        "{writes} writes and {reads} reads ({on_primary} on the primary), {retries} retries, {disturbances} disturbances"
    );
    println!(
        "{stale} stale, {went_back} went back: {}",
        if report.is_well() { "PASS" } else { "FAIL" }
    );
    Ok(report.is_well())
}

fn settings_of(matches: &ArgMatches) -> Settings {
    let january = concat!(env!("CARGO_MANIFEST_DIR"), "/demo/flights-2013-01.csv.gz");
    let path = |flag| matches.get_one::<PathBuf>(flag).cloned();
    let text = |flag| matches.get_one::<String>(flag).map_or("", String::as_str);
    Settings {
        flights: path("flights").unwrap_or_else(|| january.into()),
        regions: text("regions").split(',').map(|region| region.trim().to_owned()).collect(),
        rtt: Duration::from_millis(matches.get_one("rtt-ms").copied().unwrap_or_default()),
        handler: if text("handler") == "rust" { HandlerKind::Rust } else { HandlerKind::Sql },
        json: path("json").unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_as_make_calls_it() {
        command().debug_assert();
        let line = "loadtest demo --flights f.csv --regions a,b --rtt-ms 5 --handler rust";
        let matches = command().try_get_matches_from(line.split(' ')).unwrap();
        let settings = settings_of(matches.subcommand_matches("demo").unwrap());
        assert_eq!(settings.flights, PathBuf::from("f.csv"));
        assert_eq!(settings.regions, ["a", "b"]);
        assert_eq!(settings.rtt, Duration::from_millis(5));
        assert_eq!(settings.handler, HandlerKind::Rust);
        assert_eq!(settings.json, PathBuf::from("target/farwrite/demo.json"));
    }
}
