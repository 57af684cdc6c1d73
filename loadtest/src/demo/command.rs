//! The subcommand: its flags, and what they set.

use std::{path::PathBuf, time::Duration};

use clap::{Arg, ArgMatches, Command, value_parser};

use super::{
    run::run,
    settings::{DemoSettings, HandlerKind},
};
use crate::kit::file;

/// What `--help` adds.
const AFTER: &str = "\
The programs farwrite and flights-worker are looked for beside this one.

The last line is `demo: PASS`, or `demo: FAIL` with the reason.

Exit status:
  0  every verdict holds
  1  one does not, the file has bad rows, a server did not start, or it was interrupted
  2  wrong arguments";

/// `loadtest demo`.
#[must_use]
pub fn command() -> Command {
    Command::new("demo")
        .about("Replays real departures from New York's airports, and has SQL judge every claim")
        .arg(file("flights", "The departures: CSV of the form of nycflights13's flights, may be gzipped [default: January 2013, from the repository]"))
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
                .value_parser(value_parser!(u64).range(0..=10_000))
                .help("Round trip between the primary's region and each other one"),
        )
        .arg(
            Arg::new("handler")
                .long("handler")
                .value_name("KIND")
                .default_value("sql")
                .value_parser(["sql", "rust"])
                .help("What applies the commands: functions of the database in farwrite, or Rust in flights-worker"),
        )
        .arg(file("json", "Where every printed figure goes as JSON").default_value("target/farwrite/demo.json"))
        .after_help(AFTER)
}

/// Runs what the flags say; true when every verdict holds.
pub async fn run_command(matches: &ArgMatches) -> bool {
    run(&settings_of(matches)).await
}

fn settings_of(matches: &ArgMatches) -> DemoSettings {
    let january = concat!(env!("CARGO_MANIFEST_DIR"), "/demo/flights-2013-01.csv.gz");
    let path = |flag| matches.get_one::<PathBuf>(flag).cloned();
    let text = |flag| matches.get_one::<String>(flag).map_or("", String::as_str);
    DemoSettings {
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
        let line = "demo --flights f.csv --regions a,b --rtt-ms 5 --handler rust";
        let matches = command().try_get_matches_from(line.split(' ')).unwrap();
        let settings = settings_of(&matches);
        assert_eq!(settings.flights, PathBuf::from("f.csv"));
        assert_eq!(settings.regions, ["a", "b"]);
        assert_eq!(settings.rtt, Duration::from_millis(5));
        assert_eq!(settings.handler, HandlerKind::Rust);
        assert_eq!(settings.json, PathBuf::from("target/farwrite/demo.json"));
    }
}
