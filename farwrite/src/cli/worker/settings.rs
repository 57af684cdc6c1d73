//! The settings of a worker, and the configuration that they make.

use std::time::Duration;

use clap::ArgMatches;

use crate::{
    DatabaseName,
    worker::{Config, NewStream, config},
};

use super::super::settings::{
    DATABASE, DATABASE_URL, METRICS_ADDR, NATS_URL, STREAM, Setting, Unset, log, named, needed,
    number, parsed, text,
};

/// Every setting of a worker; defaults are those of the library.
pub(super) fn settings() -> Vec<Setting> {
    let new = NewStream::default();
    let setting = |flag, environment, value, unset: Unset, help| Setting {
        flag,
        environment,
        value,
        unset,
        help,
    };
    let is = |value: &dyn ToString| Unset::Is(value.to_string());
    vec![
        DATABASE,
        DATABASE_URL,
        NATS_URL,
        STREAM,
        setting(
            "lanes",
            "FARWRITE_LANES",
            "N",
            is(&Config::LANES),
            "How many lanes apply in parallel; may change at any start",
        ),
        setting(
            "batch-max-commands",
            "FARWRITE_BATCH_MAX_COMMANDS",
            "N",
            is(&Config::BATCH_MAX_COMMANDS),
            "Most commands in one transaction",
        ),
        setting(
            "ledger-keep-hours",
            "FARWRITE_LEDGER_KEEP_HOURS",
            "HOURS",
            is(&hours(config::LEDGER_KEEP)),
            "How long outcomes are kept, and repeated ids known",
        ),
        setting(
            "statement-timeout-ms",
            "FARWRITE_STATEMENT_TIMEOUT_MS",
            "MS",
            is(&config::STATEMENT_TIMEOUT.as_millis()),
            "How long one statement of a batch may run",
        ),
        setting(
            "attempts-max",
            "FARWRITE_ATTEMPTS_MAX",
            "N",
            is(&config::ATTEMPTS_MAX),
            "How often a command may fail alone by chance before it is dead-lettered",
        ),
        setting(
            "retry-pause-ms",
            "FARWRITE_RETRY_PAUSE_MS",
            "MS",
            is(&config::RETRY_PAUSE.as_millis()),
            "How long such a command is parked first; doubles each time, up to 5 minutes",
        ),
        setting(
            "unknown-keep-s",
            "FARWRITE_UNKNOWN_KEEP_S",
            "SECONDS",
            is(&config::UNKNOWN_KEEP.as_secs()),
            "How long a command waits for a handler, function or table that is not there yet",
        ),
        setting(
            "memory-mb",
            "FARWRITE_MEMORY_MB",
            "MB",
            is(&(config::MEMORY >> 20)),
            "Mebibytes of commands and answers that the worker holds at once; the process takes a few times as much at most",
        ),
        setting(
            "parked-max",
            "FARWRITE_PARKED_MAX",
            "N",
            is(&config::PARKED_MAX),
            "How many commands may be parked, shared by the lanes; then a lane stops",
        ),
        setting(
            "parked-max-per-key",
            "FARWRITE_PARKED_MAX_PER_KEY",
            "N",
            is(&config::PARKED_MAX_PER_KEY),
            "How many commands of one key may be parked; more are dead-lettered",
        ),
        setting(
            "context-allow",
            "FARWRITE_CONTEXT_ALLOW",
            "NAMES",
            is(&""),
            "Members that a command's context may have, separated by commas [default: none]",
        ),
        setting(
            "required-standbys",
            "FARWRITE_REQUIRED_STANDBYS",
            "NAMES|none",
            Unset::Nothing,
            "Standbys that must hold a commit before its command goes from the stream: application_name or slot, separated by commas; none: the primary alone counts [default: nothing is trimmed once the primary had a standby]",
        ),
        setting(
            "trim-min-age-s",
            "FARWRITE_TRIM_MIN_AGE_S",
            "SECONDS",
            is(&config::TRIM_MIN_AGE.as_secs()),
            "How long a command stays in the stream at least after it was applied",
        ),
        setting(
            "lease-ms",
            "FARWRITE_LEASE_MS",
            "MS",
            is(&config::LEASE.as_millis()),
            "How long the worker that owns the database may be silent before another takes over",
        ),
        setting(
            "take-over",
            "FARWRITE_TAKE_OVER",
            "true|false",
            is(&false),
            "Begin by taking over even from a worker that works, instead of standing by",
        ),
        METRICS_ADDR,
        setting(
            "stream-replicas",
            "FARWRITE_STREAM_REPLICAS",
            "N",
            is(&new.replicas),
            "migrate: copies of a new stream in a NATS cluster",
        ),
        setting(
            "stream-max-bytes",
            "FARWRITE_STREAM_MAX_BYTES",
            "BYTES",
            is(&new.max_bytes),
            "migrate: size at which a new stream refuses publishes",
        ),
        setting(
            "duplicate-window-ms",
            "FARWRITE_DUPLICATE_WINDOW_MS",
            "MS",
            is(&new.duplicate_window.as_millis()),
            "migrate: how long a new stream suppresses repeated ids itself",
        ),
        log("info"),
    ]
}

/// The configuration that the settings make.
pub(super) fn config_of(matches: &ArgMatches) -> Result<Config, String> {
    let seconds = |flag| number(matches, flag).map(Duration::from_secs);
    let milliseconds = |flag| number(matches, flag).map(Duration::from_millis);
    let ledger_keep_hours: u64 = number(matches, "ledger-keep-hours")?;
    let names = needed(matches, "context-allow")?;
    let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
    let take_over = match needed(matches, "take-over")?.as_str() {
        "true" => true,
        "false" => false,
        other => {
            return Err(format!("{}: {other:?} is neither true nor false", named("take-over")));
        }
    };
    let mut new = NewStream::default();
    new.replicas = number(matches, "stream-replicas")?;
    new.max_bytes = number(matches, "stream-max-bytes")?;
    new.duplicate_window = milliseconds("duplicate-window-ms")?;
    let database = parsed::<DatabaseName>(matches, "database")?;
    let mut config =
        Config::new(database, needed(matches, "database-url")?, needed(matches, "nats-url")?)
            .lanes(number(matches, "lanes")?)
            .batch_max_commands(number(matches, "batch-max-commands")?)
            .ledger_keep(Duration::from_secs(ledger_keep_hours.saturating_mul(3_600)))
            .statement_timeout(milliseconds("statement-timeout-ms")?)
            .attempts_max(number(matches, "attempts-max")?)
            .retry_pause(milliseconds("retry-pause-ms")?)
            .unknown_keep(seconds("unknown-keep-s")?)
            .memory(number::<usize>(matches, "memory-mb")?.saturating_mul(1 << 20))
            .parked_max(number(matches, "parked-max")?)
            .parked_max_per_key(number(matches, "parked-max-per-key")?)
            .context_allow(names.map(ToOwned::to_owned).collect())
            .trim_min_age(seconds("trim-min-age-s")?)
            .lease(milliseconds("lease-ms")?)
            .take_over(take_over)
            .new_stream(new);
    if let Some(stream) = text(matches, "stream") {
        config = config.stream(stream);
    }
    if let Some(names) = text(matches, "required-standbys") {
        config = config.required_standbys(match names.trim() {
            "none" => Vec::new(),
            names => names.split(',').map(|name| name.trim().to_owned()).collect(),
        });
    }
    config.validate().map_err(|error| error.to_string())?;
    Ok(config)
}

fn hours(duration: Duration) -> u64 {
    duration.as_secs() / 3_600
}

#[cfg(test)]
mod tests {
    use clap::Command;

    use super::{super::super::settings::with_settings, *};

    #[test]
    fn what_is_not_set_is_as_a_worker_of_the_library_has_it() {
        let needed = ["--database", "shop", "--database-url", "postgres://a/b", "--nats-url", "c"];
        let args = ["worker"].into_iter().chain(needed);
        // The environment of the tests is not asked.
        let command =
            with_settings(Command::new("worker"), settings()).mut_args(|arg| arg.env(None::<&str>));
        let config = config_of(&command.get_matches_from(args)).unwrap();
        let database = DatabaseName::new("shop").unwrap();
        assert!(config == Config::new(database, "postgres://a/b", "c"));
    }
}
