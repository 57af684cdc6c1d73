//! The command line of a worker program: `migrate` and `run`.
//!
//! A program with handlers of its own calls [`main`] with them, and has the same flags, files and
//! statuses as `primary-worker` itself.

use std::{net::SocketAddr, process::ExitCode, str::FromStr, time::Duration};

use clap::{Arg, ArgMatches, Command};
use farwrite_schemas::{
    DatabaseName,
    program::{
        log,
        settings::{self, SettingsError},
    },
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use tracing_subscriber::{layer::SubscriberExt, util::SubscriberInitExt};

use crate::{
    config::{self, Config, NewStream},
    failpoint,
    handler::Handlers,
    metrics,
    migrate::{self, MigrateError},
    stream::StreamError,
    worker::{Worker, WorkerError},
};

/// What `--help` says about the program's end.
const STATUSES: &str = "\
Exit status:
  0  asked to stop (SIGTERM, SIGINT), and everything in flight was settled
  1  an unexpected failure
  2  the configuration, the primary or the stream's settings are not usable; the message says what to change
  3  fenced: another worker has taken over this database
  4  the stream is not the one that the database knows; nothing was read from it

Settings come from flags, then the environment, then the file that --config names
(lines of FARWRITE_NAME=value), then defaults.";

/// Runs the command line with the given handlers; the end of a program's `main`.
#[must_use]
pub fn main(name: &'static str, handlers: Handlers) -> ExitCode {
    match settings::parse(command(name)) {
        Ok(matches) => start(&matches, handlers),
        // Prints help and version too, and ends with 0 for these and 2 for an error.
        Err(SettingsError::Flags(error)) => error.exit(),
        Err(error) => refuse(&error),
    }
}

/// The configuration is wrong, and nothing was contacted.
fn refuse(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::from(2)
}

struct Setting {
    flag: &'static str,
    environment: &'static str,
    value: &'static str,
    default: Option<&'static str>,
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
        help: "The primary, direct and not through a transaction pooler",
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
        default: Some("4"),
        help: "How many lanes apply in parallel; may change at any start",
    },
    Setting {
        flag: "batch-max-commands",
        environment: "FARWRITE_BATCH_MAX_COMMANDS",
        value: "N",
        default: Some("256"),
        help: "Most commands in one transaction",
    },
    Setting {
        flag: "ledger-keep-hours",
        environment: "FARWRITE_LEDGER_KEEP_HOURS",
        value: "HOURS",
        default: Some("168"),
        help: "How long outcomes are kept, and repeated ids known",
    },
    Setting {
        flag: "statement-timeout-ms",
        environment: "FARWRITE_STATEMENT_TIMEOUT_MS",
        value: "MS",
        default: Some("30000"),
        help: "How long one statement of a batch may run",
    },
    Setting {
        flag: "attempts-max",
        environment: "FARWRITE_ATTEMPTS_MAX",
        value: "N",
        default: Some("10"),
        help: "How often a command may fail alone by chance before it is dead-lettered",
    },
    Setting {
        flag: "retry-pause-ms",
        environment: "FARWRITE_RETRY_PAUSE_MS",
        value: "MS",
        default: Some("1000"),
        help: "How long such a command is parked first; doubles each time, up to 5 minutes",
    },
    Setting {
        flag: "unknown-keep-s",
        environment: "FARWRITE_UNKNOWN_KEEP_S",
        value: "SECONDS",
        default: Some("86400"),
        help: "How long a command waits for a handler, function or table that is not there yet",
    },
    Setting {
        flag: "parked-max",
        environment: "FARWRITE_PARKED_MAX",
        value: "N",
        default: Some("1000000"),
        help: "How many commands may be parked, shared by the lanes; then a lane stops",
    },
    Setting {
        flag: "parked-max-per-key",
        environment: "FARWRITE_PARKED_MAX_PER_KEY",
        value: "N",
        default: Some("100000"),
        help: "How many commands of one key may be parked; more are dead-lettered",
    },
    Setting {
        flag: "context-allow",
        environment: "FARWRITE_CONTEXT_ALLOW",
        value: "NAMES",
        default: Some(""),
        help: "Members that a command's context may have, separated by commas [default: none]",
    },
    Setting {
        flag: "metrics-addr",
        environment: "FARWRITE_METRICS_ADDR",
        value: "ADDR:PORT",
        default: None,
        help: "Where metrics are served, in Prometheus's format [default: nowhere]",
    },
    Setting {
        flag: "stream-replicas",
        environment: "FARWRITE_STREAM_REPLICAS",
        value: "N",
        default: Some("1"),
        help: "migrate: copies of a new stream in a NATS cluster",
    },
    Setting {
        flag: "stream-max-bytes",
        environment: "FARWRITE_STREAM_MAX_BYTES",
        value: "BYTES",
        default: Some("4294967296"),
        help: "migrate: size at which a new stream refuses publishes",
    },
    Setting {
        flag: "duplicate-window-ms",
        environment: "FARWRITE_DUPLICATE_WINDOW_MS",
        value: "MS",
        default: Some("120000"),
        help: "migrate: how long a new stream suppresses repeated ids itself",
    },
    Setting {
        flag: "log",
        environment: "FARWRITE_LOG",
        value: "FILTER",
        default: Some("info"),
        help: "What is logged, such as info or warn,farwrite_primary_worker=debug",
    },
];

fn command(name: &'static str) -> Command {
    let with_settings = |command: Command| {
        SETTINGS.iter().fold(command.arg(settings::file_argument()), |command, setting| {
            let arg = Arg::new(setting.flag)
                .long(setting.flag)
                .env(setting.environment)
                .hide_env_values(true)
                .value_name(setting.value)
                .help(setting.help);
            let required = matches!(setting.flag, "database" | "database-url" | "nats-url");
            command.arg(match setting.default {
                Some(default) => arg.default_value(default),
                None => arg.required(required),
            })
        })
    };
    Command::new(name)
        .version(env!("CARGO_PKG_VERSION"))
        .about("Applies the write commands of a NATS JetStream stream to a PostgreSQL primary, exactly once and in order per key")
        .after_help(STATUSES)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(with_settings(Command::new("migrate").about("Prepares the database (schema farwrite) and the stream; safe to repeat").after_help(STATUSES)))
        .subcommand(with_settings(Command::new("run").about("Applies commands until it is asked to stop").after_help(STATUSES)))
}

fn start(matches: &ArgMatches, handlers: Handlers) -> ExitCode {
    let Some((subcommand, matches)) = matches.subcommand() else { return ExitCode::from(2) };
    let config = match start_log(matches).and_then(|()| config_of(matches)) {
        Ok(config) => config,
        Err(message) => return refuse(&message),
    };
    match failpoint::armed() {
        Ok(None) => {}
        Ok(Some(point)) => {
            warn!(failpoint = point.name(), "ARMED: this process will kill itself there")
        }
        Err(message) => return refuse(&message),
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the runtime does not start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match subcommand {
        "migrate" => runtime.block_on(run_migrate(&config)),
        _ => runtime.block_on(run_worker(config, handlers)),
    }
}

fn start_log(matches: &ArgMatches) -> Result<(), String> {
    let filter = text(matches, "log").unwrap_or_else(|| "info".to_owned());
    let filter = log::filter(&filter).map_err(|error| format!("log: {error}"))?;
    let format = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    tracing_subscriber::registry()
        .with(format)
        .with(filter)
        .try_init()
        .map_err(|error| error.to_string())
}

fn config_of(matches: &ArgMatches) -> Result<Config, String> {
    let needed = |flag| text(matches, flag).ok_or(format!("{flag}: missing"));
    let database = DatabaseName::new(needed("database")?).map_err(|error| error.to_string())?;
    let mut config = Config::new(database, needed("database-url")?, needed("nats-url")?);
    if let Some(stream) = text(matches, "stream") {
        config.stream = stream;
    }
    config.lanes = number(matches, "lanes", config.lanes)?;
    config.batch_max_commands = number(matches, "batch-max-commands", config.batch_max_commands)?;
    let hours: u64 = number(matches, "ledger-keep-hours", config::LEDGER_KEEP.as_secs() / 3_600)?;
    config.ledger_keep = Duration::from_secs(hours.saturating_mul(3_600));
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
    config.metrics_addr = match text(matches, "metrics-addr") {
        Some(addr) => Some(
            addr.parse::<SocketAddr>()
                .map_err(|_| format!("metrics-addr: {addr:?} is not of the form 127.0.0.1:9464"))?,
        ),
        None => None,
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

fn text(matches: &ArgMatches, flag: &str) -> Option<String> {
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

async fn run_migrate(config: &Config) -> ExitCode {
    match migrate::migrate(config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(%error, "migrate");
            match error {
                MigrateError::Stream(StreamError::Unknown { .. }) => ExitCode::from(4),
                MigrateError::Stream(
                    StreamError::Contract { .. } | StreamError::NotRegistered(_),
                ) => ExitCode::from(2),
                MigrateError::Primary(error) if !error.may_pass() => ExitCode::from(2),
                MigrateError::Stream(_) | MigrateError::Primary(_) | MigrateError::Schema(_) => {
                    ExitCode::FAILURE
                }
            }
        }
    }
}

async fn run_worker(config: Config, handlers: Handlers) -> ExitCode {
    if let Some(addr) = config.metrics_addr
        && let Err(error) =
            metrics_exporter_prometheus::PrometheusBuilder::new().with_http_listener(addr).install()
    {
        error!(%error, %addr, "metrics cannot be served");
        return ExitCode::from(2);
    }
    metrics::describe();
    let stop = CancellationToken::new();
    if let Err(error) = stop_on_signals(stop.clone()) {
        error!(%error, "signals cannot be heard");
        return ExitCode::FAILURE;
    }
    let worker = match Worker::new(config, handlers) {
        Ok(worker) => worker,
        Err(error) => {
            error!(%error, "configuration");
            return ExitCode::from(2);
        }
    };
    match worker.run(stop).await {
        Ok(()) => {
            info!("stopped");
            ExitCode::SUCCESS
        }
        Err(error) => {
            error!(%error, "the worker ends");
            status_of(&error)
        }
    }
}

fn status_of(error: &WorkerError) -> ExitCode {
    match error {
        WorkerError::Fenced => ExitCode::from(3),
        WorkerError::Stream(StreamError::Unknown { .. }) => ExitCode::from(4),
        WorkerError::Config(_) | WorkerError::Primary(_) | WorkerError::Stream(_) => {
            ExitCode::from(2)
        }
        WorkerError::Broken(_) | WorkerError::Task(_) => ExitCode::FAILURE,
    }
}

fn stop_on_signals(stop: CancellationToken) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => info!("SIGTERM: stopping"),
            _ = interrupt.recv() => info!("SIGINT: stopping"),
        }
        stop.cancel();
    });
    Ok(())
}
