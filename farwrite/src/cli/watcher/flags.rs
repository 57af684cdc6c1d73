//! The flags of `farwrite watcher run`, and what they mean once they are checked.

use std::process::ExitCode;

use async_nats::ServerAddr;
use clap::{ArgMatches, Command};
use farwrite_schemas::{NatsServers, Subjects};
use tokio::runtime::Builder;

use crate::watcher::{EmbeddedConfig, RegionConfig};

use super::{
    super::{
        runtime::{run_on, start_log},
        settings::{
            DATABASE, METRICS_ADDR, NATS_URL, REPLICA_URL, Setting, Unset, group, log,
            metrics_addr, named, needed, parsed, with_settings,
        },
    },
    run::{self, WatcherSettings},
};

const ABOUT: &str =
    "Says over NATS what a region's replica has replayed, to all apps of the region";

const ABOUT_RUN: &str = "\
Says over NATS what a region's replica has replayed, to all apps of the region.

Apps say which position of the log they wait for. While one is not reached, the replica is polled \
over a single connection, and each advance is broadcast once. While nobody waits, nothing is polled. \
A replica or a NATS server that is away is tried again until it is back. A second watcher for the \
same region does no harm.";

const STATUSES: &str = "\
Exit status:
  0  stopped by SIGTERM or SIGINT
  1  an unexpected failure; the log says which
  2  a flag, the environment or the file is wrong; nothing was contacted";

const REGION: Setting = Setting {
    flag: "region",
    environment: "FARWRITE_REGION",
    value: "NAME",
    unset: Unset::Refused,
    help: "The region whose apps are served",
};

/// `farwrite watcher`.
pub(crate) fn command() -> Command {
    let run = Command::new("run").about(ABOUT).long_about(ABOUT_RUN).after_help(STATUSES);
    let replica = Setting {
        unset: Unset::Refused,
        help: "The region's replica, a direct connection; any role that may connect",
        ..REPLICA_URL
    };
    let settings = [DATABASE, REGION, replica, NATS_URL, METRICS_ADDR, log("info")];
    group("watcher", ABOUT).subcommand(with_settings(run, settings))
}

/// Starts it, or says which setting is not usable.
pub(crate) fn start(matches: &ArgMatches) -> Result<ExitCode, String> {
    let (_, matches) = matches.subcommand().ok_or("watcher: choose a subcommand")?;
    let settings = WatcherSettings::read(matches)?;
    start_log(matches)?;
    let mut runtime = Builder::new_multi_thread();
    runtime.worker_threads(2);
    Ok(run_on(runtime, run::run(settings)))
}

impl WatcherSettings {
    /// Checks what `run` was given; touches nothing outside.
    ///
    /// # Errors
    /// With the first setting that breaks its rule. Says nothing of the value where that may hold
    /// a password.
    fn read(matches: &ArgMatches) -> Result<Self, String> {
        let subjects = Subjects::new(parsed(matches, "database")?);
        let replica = EmbeddedConfig::new(&needed(matches, "replica-url")?);
        let region = RegionConfig::new(subjects, parsed(matches, "region")?, replica);
        region.validate().map_err(|error| format!("{}: {}", named("replica-url"), error.rule))?;
        let nats = NatsServers::parse(&needed(matches, "nats-url")?);
        let is_valid = |url: &String| url.parse::<ServerAddr>().is_ok();
        if nats.urls.is_empty() || !nats.urls.iter().all(is_valid) {
            let rule = "URLs like nats://host:4222, joined by commas";
            return Err(format!("{}: {rule}", named("nats-url")));
        }
        Ok(Self { region, nats, metrics_addr: metrics_addr(matches)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(more: &[&str]) -> Result<WatcherSettings, String> {
        let good = [
            "--database=shop",
            "--region=jfk",
            "--replica-url=postgres://me:secret@localhost/shop",
            "--nats-url=nats://me:secret@localhost:4222",
            "--log=debug",
        ];
        let args = ["watcher", "run"].iter().chain(&good).chain(more);
        let command = command().mut_subcommand("run", |run| run.args_override_self(true));
        let matches = command.try_get_matches_from(args).unwrap();
        WatcherSettings::read(matches.subcommand_matches("run").unwrap())
    }

    #[test]
    fn a_wrong_setting_is_named_with_its_rule_and_no_secret() {
        assert!(read(&[]).is_ok());
        for (flag, wrong) in [
            ("--database", "sh.op"),
            ("--region", ""),
            ("--replica-url", "secret"),
            ("--replica-url", "postgres://me:secret@x:port/y"),
            ("--nats-url", ""),
            ("--nats-url", "nats://me:secret@x:port"),
            ("--metrics-addr", "9187"),
        ] {
            let error = read(&[flag, wrong]).unwrap_err();
            assert!(error.starts_with(flag) && !error.contains("secret"), "{error}");
        }
    }
}
