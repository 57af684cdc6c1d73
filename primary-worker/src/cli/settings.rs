//! Every setting of a worker program, once; and the configuration that they make.

use std::{net::SocketAddr, str::FromStr, time::Duration};

use clap::{Arg, ArgMatches, Command};
use farwrite_internal::program::settings;
use farwrite_schemas::DatabaseName;

use crate::config::{self, Config, NewStream};

/// One setting, as a flag and as a name of the environment.
struct Setting {
    flag: &'static str,
    environment: &'static str,
    value: &'static str,
    default: Option<fn() -> String>,
    help: &'static str,
}

/// Every setting, once: flag, environment, default and help.
const SETTINGS: &[Setting] = &[
    Setting {
        flag: "database",
        environment: "FARWRITE_DATABASE",
        value: "NAME",
        default: None,
        help: "Farwrite's name of the database, part of every subject",
    },
    Setting {
        flag: "database-url",
        environment: "FARWRITE_DATABASE_URL",
        value: "URL",
        default: None,
        help: "The primary, direct and not through a transaction pooler; or several servers, separated by commas, one of which is the primary",
    },
    Setting {
        flag: "nats-url",
        environment: "FARWRITE_NATS_URL",
        value: "URLS",
        default: None,
        help: "NATS servers, separated by commas",
    },
    Setting {
        flag: "stream",
        environment: "FARWRITE_STREAM",
        value: "NAME",
        default: None,
        help: "JetStream's name of the command stream [default: farwrite-<database>]",
    },
    Setting {
        flag: "lanes",
        environment: "FARWRITE_LANES",
        value: "N",
        default: Some(|| Config::LANES.to_string()),
        help: "How many lanes apply in parallel; may change at any start",
    },
    Setting {
        flag: "batch-max-commands",
        environment: "FARWRITE_BATCH_MAX_COMMANDS",
        value: "N",
        default: Some(|| Config::BATCH_MAX_COMMANDS.to_string()),
        help: "Most commands in one transaction",
    },
    Setting {
        flag: "ledger-keep-hours",
        environment: "FARWRITE_LEDGER_KEEP_HOURS",
        value: "HOURS",
        default: Some(|| hours(config::LEDGER_KEEP).to_string()),
        help: "How long outcomes are kept, and repeated ids known",
    },
    Setting {
        flag: "statement-timeout-ms",
        environment: "FARWRITE_STATEMENT_TIMEOUT_MS",
        value: "MS",
        default: Some(|| config::STATEMENT_TIMEOUT.as_millis().to_string()),
        help: "How long one statement of a batch may run",
    },
    Setting {
        flag: "attempts-max",
        environment: "FARWRITE_ATTEMPTS_MAX",
        value: "N",
        default: Some(|| config::ATTEMPTS_MAX.to_string()),
        help: "How often a command may fail alone by chance before it is dead-lettered",
    },
    Setting {
        flag: "retry-pause-ms",
        environment: "FARWRITE_RETRY_PAUSE_MS",
        value: "MS",
        default: Some(|| config::RETRY_PAUSE.as_millis().to_string()),
        help: "How long such a command is parked first; doubles each time, up to 5 minutes",
    },
    Setting {
        flag: "unknown-keep-s",
        environment: "FARWRITE_UNKNOWN_KEEP_S",
        value: "SECONDS",
        default: Some(|| config::UNKNOWN_KEEP.as_secs().to_string()),
        help: "How long a command waits for a handler, function or table that is not there yet",
    },
    Setting {
        flag: "parked-max",
        environment: "FARWRITE_PARKED_MAX",
        value: "N",
        default: Some(|| config::PARKED_MAX.to_string()),
        help: "How many commands may be parked, shared by the lanes; then a lane stops",
    },
    Setting {
        flag: "parked-max-per-key",
        environment: "FARWRITE_PARKED_MAX_PER_KEY",
        value: "N",
        default: Some(|| config::PARKED_MAX_PER_KEY.to_string()),
        help: "How many commands of one key may be parked; more are dead-lettered",
    },
    Setting {
        flag: "context-allow",
        environment: "FARWRITE_CONTEXT_ALLOW",
        value: "NAMES",
        default: Some(String::new),
        help: "Members that a command's context may have, separated by commas [default: none]",
    },
    Setting {
        flag: "required-standbys",
        environment: "FARWRITE_REQUIRED_STANDBYS",
        value: "NAMES|none",
        default: None,
        help: "Standbys that must hold a commit before its command goes from the stream: application_name or slot, separated by commas; none: the primary alone counts [default: nothing is trimmed]",
    },
    Setting {
        flag: "trim-min-age-s",
        environment: "FARWRITE_TRIM_MIN_AGE_S",
        value: "SECONDS",
        default: Some(|| config::TRIM_MIN_AGE.as_secs().to_string()),
        help: "How long a command stays in the stream at least after it was applied",
    },
    Setting {
        flag: "lease-ms",
        environment: "FARWRITE_LEASE_MS",
        value: "MS",
        default: Some(|| config::LEASE.as_millis().to_string()),
        help: "How long the worker that owns the database may be silent before another takes over",
    },
    Setting {
        flag: "take-over",
        environment: "FARWRITE_TAKE_OVER",
        value: "true|false",
        default: Some(|| false.to_string()),
        help: "Begin by taking over even from a worker that works, instead of standing by",
    },
    Setting {
        flag: "metrics-addr",
        environment: "FARWRITE_METRICS_ADDR",
        value: "ADDR:PORT",
        default: None,
        help: "Where /metrics (Prometheus's format), /ready and /live are served [default: nowhere]",
    },
    Setting {
        flag: "stream-replicas",
        environment: "FARWRITE_STREAM_REPLICAS",
        value: "N",
        default: Some(|| NewStream::default().replicas.to_string()),
        help: "migrate: copies of a new stream in a NATS cluster",
    },
    Setting {
        flag: "stream-max-bytes",
        environment: "FARWRITE_STREAM_MAX_BYTES",
        value: "BYTES",
        default: Some(|| config::STREAM_MAX_BYTES.to_string()),
        help: "migrate: size at which a new stream refuses publishes",
    },
    Setting {
        flag: "duplicate-window-ms",
        environment: "FARWRITE_DUPLICATE_WINDOW_MS",
        value: "MS",
        default: Some(|| config::DUPLICATE_WINDOW.as_millis().to_string()),
        help: "migrate: how long a new stream suppresses repeated ids itself",
    },
    Setting {
        flag: "log",
        environment: "FARWRITE_LOG",
        value: "FILTER",
        default: Some(|| ALL.log.to_owned()),
        help: "What is logged, such as info or warn,farwrite_primary_worker=debug",
    },
];

/// Which settings a subcommand has.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    /// Their flags; all when empty.
    pub(super) flags: &'static [&'static str],
    /// What is logged by default.
    pub(super) log: &'static str,
}

/// Those of `migrate` and `run`.
pub(super) const ALL: Wanted = Wanted { flags: &[], log: "info" };

/// Gives a subcommand its settings.
pub(super) fn with_settings(command: Command, wanted: Wanted) -> Command {
    let settings = SETTINGS
        .iter()
        .filter(|setting| wanted.flags.is_empty() || wanted.flags.contains(&setting.flag));
    settings.fold(command.arg(settings::file_argument()), |command, setting| {
        let arg = Arg::new(setting.flag)
            .long(setting.flag)
            .env(setting.environment)
            .hide_env_values(true)
            .value_name(setting.value)
            .help(setting.help);
        let required = matches!(setting.flag, "database" | "database-url" | "nats-url");
        command.arg(match setting.default {
            Some(_) if setting.flag == "log" => arg.default_value(wanted.log),
            Some(default) => arg.default_value(default()),
            None => arg.required(required),
        })
    })
}

/// The configuration that the settings make.
pub(super) fn config_of(matches: &ArgMatches) -> Result<Config, String> {
    let needed = |flag| text(matches, flag).ok_or(format!("{flag}: missing"));
    let database = DatabaseName::new(needed("database")?).map_err(|error| error.to_string())?;
    let mut config = Config::new(database, needed("database-url")?, needed("nats-url")?);
    if let Some(stream) = text(matches, "stream") {
        config.stream = stream;
    }
    config.lanes = number(matches, "lanes", config.lanes)?;
    config.batch_max_commands = number(matches, "batch-max-commands", config.batch_max_commands)?;
    let keep_hours: u64 = number(matches, "ledger-keep-hours", hours(config.ledger_keep))?;
    config.ledger_keep = Duration::from_secs(keep_hours.saturating_mul(3_600));
    config.statement_timeout =
        milliseconds(matches, "statement-timeout-ms", config.statement_timeout)?;
    config.attempts_max = number(matches, "attempts-max", config.attempts_max)?;
    config.retry_pause = milliseconds(matches, "retry-pause-ms", config.retry_pause)?;
    let keep_s = number(matches, "unknown-keep-s", config.unknown_keep.as_secs())?;
    config.unknown_keep = Duration::from_secs(keep_s);
    config.parked_max = number(matches, "parked-max", config.parked_max)?;
    config.parked_max_per_key = number(matches, "parked-max-per-key", config.parked_max_per_key)?;
    let names = text(matches, "context-allow").unwrap_or_default();
    let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
    config.context_allow = names.map(ToOwned::to_owned).collect();
    config.required_standbys = text(matches, "required-standbys").map(|names| match names.trim() {
        "none" => Vec::new(),
        names => names.split(',').map(|name| name.trim().to_owned()).collect(),
    });
    config.trim_min_age =
        Duration::from_secs(number(matches, "trim-min-age-s", config.trim_min_age.as_secs())?);
    config.lease = milliseconds(matches, "lease-ms", config.lease)?;
    config.take_over = match text(matches, "take-over").as_deref() {
        Some("true") => true,
        None | Some("false") => false,
        Some(other) => return Err(format!("take-over: {other:?} is neither true nor false")),
    };
    let new = NewStream::default();
    config.new_stream = NewStream {
        replicas: number(matches, "stream-replicas", new.replicas)?,
        max_bytes: number(matches, "stream-max-bytes", new.max_bytes)?,
        duplicate_window: milliseconds(matches, "duplicate-window-ms", new.duplicate_window)?,
    };
    config.validate().map_err(|error| error.to_string())?;
    Ok(config)
}

/// Where metrics are served, in Prometheus's format; nowhere when it is not said.
pub(super) fn metrics_addr(matches: &ArgMatches) -> Result<Option<SocketAddr>, String> {
    let Some(addr) = text(matches, "metrics-addr") else { return Ok(None) };
    let wrong = |_| format!("metrics-addr: {addr:?} is not of the form 127.0.0.1:9464");
    addr.parse().map(Some).map_err(wrong)
}

fn hours(duration: Duration) -> u64 {
    duration.as_secs() / 3_600
}

/// The text of a setting or flag, where it has one.
pub(super) fn text(matches: &ArgMatches, flag: &str) -> Option<String> {
    matches.get_one::<String>(flag).cloned()
}

fn number<N: FromStr>(matches: &ArgMatches, flag: &str, default: N) -> Result<N, String> {
    let Some(text) = text(matches, flag) else { return Ok(default) };
    text.parse().map_err(|_| format!("{flag}: {text:?} is not a number that fits"))
}

fn milliseconds(matches: &ArgMatches, flag: &str, default: Duration) -> Result<Duration, String> {
    let default = u64::try_from(default.as_millis()).unwrap_or(u64::MAX);
    Ok(Duration::from_millis(number(matches, flag, default)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_set_is_as_a_worker_of_the_library_has_it() {
        let needed = ["--database", "shop", "--database-url", "postgres://a/b", "--nats-url", "c"];
        // Whatever the environment of the tests sets is not asked for.
        let args = ["worker"].into_iter().chain(needed);
        let command =
            with_settings(Command::new("worker"), ALL).mut_args(|arg| arg.env(None::<&str>));
        let config = config_of(&command.get_matches_from(args)).unwrap();
        let database = DatabaseName::new("shop").unwrap();
        assert!(config == Config::new(database, "postgres://a/b", "c"));
    }
}
