//! The program's flags, and what they mean once they are checked.

use std::net::SocketAddr;

use clap::{Arg, ArgMatches, Command};
use farwrite_internal::program::{log, settings};
use farwrite_lsn_watcher::{EmbeddedConfig, RegionConfig};
use farwrite_schemas::{DatabaseName, NatsServers, Origin, Subjects};
use tracing_subscriber::filter::Targets;

const ABOUT: &str = "Watches a region's replica for all apps of the region";

const ABOUT_RUN: &str = "\
Watches a region's replica for all apps of the region.

Apps say over NATS which position of the log they wait for; while one is not \
reached the replica is polled over a single connection, and each advance is \
broadcast once. Nobody waits, nothing is polled. A replica or a NATS server \
that is away is tried again until it is back. A second watcher for the same \
region does no harm.";

const EXIT_STATUS: &str = "\
Settings are taken from flags, then the environment, then the file, then defaults.

Exit status:
  0  stopped by SIGTERM or SIGINT
  1  an unexpected failure; the log says which
  2  a flag, the environment or the file is wrong; nothing was contacted";

/// What the program was told to do, checked.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) region: RegionConfig,
    pub(crate) nats: NatsServers,
    pub(crate) metrics_addr: Option<SocketAddr>,
    pub(crate) log: Targets,
}

/// A setting breaks its rule. Says nothing of the value where that may hold a password.
#[derive(Debug, thiserror::Error)]
#[error("--{flag} ({env}) is not valid: {rule}")]
pub(crate) struct SettingError {
    flag: &'static str,
    env: &'static str,
    rule: String,
}

pub(crate) fn command() -> Command {
    let run = Command::new("run")
        .about(ABOUT)
        .long_about(ABOUT_RUN)
        .after_help(EXIT_STATUS)
        .arg(
            arg("database", "FARWRITE_DATABASE", "NAME", "The database's name in Farwrite")
                .required(true),
        )
        .arg(
            arg("region", "FARWRITE_REGION", "NAME", "The region whose apps are served")
                .required(true),
        )
        .arg(
            arg(
                "replica-url",
                "FARWRITE_REPLICA_URL",
                "URL",
                "The region's replica: postgres://user:password@host:port/database, a direct \
                 connection; any role that may connect",
            )
            .required(true),
        )
        .arg(
            arg(
                "nats-url",
                "FARWRITE_NATS_URL",
                "URL",
                "The region's NATS: nats://host:port, several joined by commas",
            )
            .required(true),
        )
        .arg(arg(
            "metrics-addr",
            "FARWRITE_METRICS_ADDR",
            "ADDRESS:PORT",
            "Where Prometheus finds the metrics; port 0 takes a free one and logs it [default: \
             nowhere]",
        ))
        .arg(
            arg(
                "log",
                "FARWRITE_LOG",
                "FILTER",
                "What is logged: a level, or target=level joined by commas",
            )
            .default_value("info"),
        )
        .arg(settings::file_argument());
    Command::new("lsn-watcher")
        .about(ABOUT)
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .after_help(EXIT_STATUS)
        .subcommand(run)
}

fn arg(flag: &'static str, env: &'static str, value: &'static str, help: &'static str) -> Arg {
    // Without the present values of the environment: a URL holds a password.
    Arg::new(flag).long(flag).env(env).hide_env_values(true).value_name(value).help(help)
}

impl Settings {
    /// Checks what `run` was given; touches nothing outside.
    ///
    /// # Errors
    /// With the first setting that breaks its rule.
    pub(crate) fn read(run: &ArgMatches) -> Result<Self, SettingError> {
        let text = |flag: &str| run.get_one::<String>(flag).map_or("", String::as_str);
        let wrong = |flag, env, rule: String| SettingError { flag, env, rule };
        let database = DatabaseName::new(text("database"))
            .map_err(|error| wrong("database", "FARWRITE_DATABASE", error.to_string()))?;
        let region = Origin::new(text("region"))
            .map_err(|error| wrong("region", "FARWRITE_REGION", error.to_string()))?;
        let replica = EmbeddedConfig::new(text("replica-url"));
        let region = RegionConfig::new(Subjects::new(database), region, replica);
        region
            .validate()
            .map_err(|error| wrong("replica-url", "FARWRITE_REPLICA_URL", error.rule.to_owned()))?;
        let nats = NatsServers::parse(text("nats-url"));
        let is_valid = |url: &String| url.parse::<async_nats::ServerAddr>().is_ok();
        if nats.urls.is_empty() || !nats.urls.iter().all(is_valid) {
            let rule = "URLs like nats://host:4222, joined by commas";
            return Err(wrong("nats-url", "FARWRITE_NATS_URL", rule.to_owned()));
        }
        let metrics_addr = run.get_one::<String>("metrics-addr").map(|text| text.parse());
        let metrics_addr = metrics_addr.transpose().map_err(|_| {
            let rule = "an address and a port, such as 127.0.0.1:9187";
            wrong("metrics-addr", "FARWRITE_METRICS_ADDR", rule.to_owned())
        })?;
        let log = log::filter(text("log"))
            .map_err(|error| wrong("log", "FARWRITE_LOG", error.to_string()))?;
        Ok(Self { region, nats, metrics_addr, log })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(more: &[&str]) -> Result<Settings, SettingError> {
        let good = [
            "--database=shop",
            "--region=jfk",
            "--replica-url=postgres://me:secret@localhost/shop",
            "--nats-url=nats://me:secret@localhost:4222",
            "--log=debug",
        ];
        let args = ["lsn-watcher", "run"].iter().chain(&good).chain(more);
        let command = command().mut_subcommand("run", |run| run.args_override_self(true));
        let matches = command.try_get_matches_from(args).unwrap();
        Settings::read(matches.subcommand_matches("run").unwrap())
    }

    #[test]
    fn the_flags_are_well_formed() {
        command().debug_assert();
        read(&[]).unwrap();
    }

    #[test]
    fn a_wrong_setting_is_named_with_its_rule_and_no_secret() {
        for (flag, wrong) in [
            ("--database", "sh.op"),
            ("--region", ""),
            ("--replica-url", "secret"),
            ("--replica-url", "postgres://me:secret@x:port/y"),
            ("--nats-url", ""),
            ("--nats-url", "nats://me:secret@x:port"),
            ("--metrics-addr", "9187"),
            ("--log", "loud=very"),
        ] {
            let error = read(&[flag, wrong]).unwrap_err().to_string();
            assert!(error.starts_with(flag) && !error.contains("secret"), "{error}");
        }
    }
}
