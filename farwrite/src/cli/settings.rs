//! What the flags of the subcommands are made of, and every setting that several of them have.
//!
//! A setting has one flag, one name in the environment and in the file, and one text.

use std::{net::SocketAddr, str::FromStr};

use clap::{Arg, ArgMatches, Command};
use farwrite_internal::program::settings::file_argument;

/// One setting, as a flag and as a name of the environment.
#[derive(Clone)]
pub(crate) struct Setting {
    pub(crate) flag: &'static str,
    pub(crate) environment: &'static str,
    pub(crate) value: &'static str,
    pub(crate) unset: Unset,
    pub(crate) help: &'static str,
}

/// What holds where a setting is not given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unset {
    /// It must be given.
    Refused,
    /// Nothing; the help says what that means.
    Nothing,
    /// This.
    Is(String),
}

pub(crate) const DATABASE: Setting = Setting {
    flag: "database",
    environment: "FARWRITE_DATABASE",
    value: "NAME",
    unset: Unset::Refused,
    help: "Farwrite's name of the database, part of every subject",
};

pub(crate) const DATABASE_URL: Setting = Setting {
    flag: "database-url",
    environment: "FARWRITE_DATABASE_URL",
    value: "URL",
    unset: Unset::Refused,
    help: "The primary, direct and not through a transaction pooler; or several servers, separated by commas, one of which is the primary",
};

pub(crate) const REPLICA_URL: Setting = Setting {
    flag: "replica-url",
    environment: "FARWRITE_REPLICA_URL",
    value: "URL",
    unset: Unset::Nothing,
    help: "This region's replica, direct and not through a transaction pooler",
};

pub(crate) const NATS_URL: Setting = Setting {
    flag: "nats-url",
    environment: "FARWRITE_NATS_URL",
    value: "URLS",
    unset: Unset::Refused,
    help: "NATS servers, separated by commas",
};

pub(crate) const STREAM: Setting = Setting {
    flag: "stream",
    environment: "FARWRITE_STREAM",
    value: "NAME",
    unset: Unset::Nothing,
    help: "JetStream's name of the command stream [default: farwrite-<database>]",
};

pub(crate) const METRICS_ADDR: Setting = Setting {
    flag: "metrics-addr",
    environment: "FARWRITE_METRICS_ADDR",
    value: "ADDR:PORT",
    unset: Unset::Nothing,
    help: "Where /metrics (Prometheus's format), /ready and /live are served; port 0 takes a free one and logs it [default: nowhere]",
};

/// What a subcommand that serves logs; operators hear of trouble only.
pub(crate) fn log(default: &str) -> Setting {
    Setting {
        flag: "log",
        environment: "FARWRITE_LOG",
        value: "FILTER",
        unset: Unset::Is(default.to_owned()),
        help: "What is logged: a level, or target=level, joined by commas, such as warn,farwrite_primary_worker=debug",
    }
}

/// Gives a subcommand its settings, and the file that they may come from.
pub(crate) fn with_settings(
    command: Command,
    settings: impl IntoIterator<Item = Setting>,
) -> Command {
    settings.into_iter().fold(command.arg(file_argument()), |command, setting| {
        let arg = Arg::new(setting.flag)
            .long(setting.flag)
            .env(setting.environment)
            // A URL holds a password.
            .hide_env_values(true)
            .value_name(setting.value)
            .help(setting.help);
        command.arg(match setting.unset {
            Unset::Refused => arg.required(true),
            Unset::Nothing => arg,
            Unset::Is(default) => arg.default_value(default),
        })
    })
}

/// Subcommands that are chosen by the name of one of their own.
pub(crate) fn group(name: &'static str, about: &'static str) -> Command {
    Command::new(name).about(about).subcommand_required(true).arg_required_else_help(true)
}

/// A flag with a value, of one subcommand.
pub(crate) fn flag(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help)
}

/// The text of a setting or flag, where it has one.
pub(crate) fn text(matches: &ArgMatches, flag: &str) -> Option<String> {
    matches.get_one::<String>(flag).cloned()
}

/// The text of a setting that must be given.
pub(crate) fn needed(matches: &ArgMatches, flag: &str) -> Result<String, String> {
    text(matches, flag).ok_or_else(|| format!("{flag}: missing"))
}

/// A setting as an error names it, by its flag and its variable.
pub(crate) fn named(flag: &str) -> String {
    format!("--{flag} (FARWRITE_{})", flag.to_uppercase().replace('-', "_"))
}

/// Reads a setting; an error names it with its rule, and not its value, which may be a secret.
pub(crate) fn parsed<T: FromStr>(matches: &ArgMatches, flag: &str) -> Result<T, String>
where
    T::Err: std::fmt::Display,
{
    needed(matches, flag)?.parse().map_err(|error| format!("{}: {error}", named(flag)))
}

/// Reads a number that is given, or has a default.
pub(crate) fn number<N: FromStr>(matches: &ArgMatches, flag: &str) -> Result<N, String> {
    let text = needed(matches, flag)?;
    text.parse().map_err(|_| format!("{}: {text:?} is not a number that fits", named(flag)))
}

/// Where metrics and readiness are served.
pub(crate) fn metrics_addr(matches: &ArgMatches) -> Result<Option<SocketAddr>, String> {
    let addr = text(matches, METRICS_ADDR.flag).map(|text| text.parse());
    let rule = "an address and a port, such as 127.0.0.1:9464";
    addr.transpose().map_err(|_| format!("{}: {rule}", named(METRICS_ADDR.flag)))
}
