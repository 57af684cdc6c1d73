//! The command line of a worker program: `migrate`, `run`, and what operators ask for and do.
//!
//! A program with handlers of its own calls [`main`] with them, and has the same flags, files and
//! statuses as `primary-worker` itself.

mod operate;
mod settings;

use std::{net::SocketAddr, process::ExitCode};

use clap::{Arg, ArgAction, ArgMatches, Command};
use farwrite_internal::{
    Chain, Health,
    program::{
        http::{self, HttpError},
        log,
        settings::{SettingsError, parse},
    },
};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    apply::handler::Handlers,
    config::Config,
    failpoint,
    life::{
        adopt::{self, AdoptError, Adoption, GoOnFrom},
        end::WorkerError,
        migrate::{self, MigrateError, StreamFound},
        schema::FunctionsFound,
        worker::Worker,
    },
    metrics,
    stream::error::StreamError,
};

use settings::{config_of, metrics_addr, text, with_settings};

/// What `--help` says about the program's end.
const STATUSES: &str = "\
Exit status:
  0  asked to stop (SIGTERM, SIGINT), and everything in flight was settled
  1  an unexpected failure
  2  the configuration, the primary or the stream's settings are not usable; the message says what to change
  4  the stream is not the one that the database knows; nothing was read from it
  5  migrate --check: migrate has something to do

Settings come from flags, then the environment, then the file that --config names
(lines of FARWRITE_NAME=value), then defaults.";

/// What `adopt-stream --help` says.
const ADOPTION: &str = "\
Stop the worker first. Nothing is lost by --from first: what was applied before is known from the
ledger and not applied again, as far back as it is kept (--ledger-keep-hours). Whatever lies below
the place that is chosen, and was not applied, never will be. docs/failover.md has the cases.

Exit status:
  0  done
  1  not done: a worker owns the database, the stream is not there (or is, with --recreate), or the primary failed
  2  the flags, the configuration, the primary or the stream's settings are not usable";

/// Runs the command line with the given handlers; the end of a program's `main`.
#[must_use]
pub fn main(name: &'static str, handlers: Handlers) -> ExitCode {
    match parse(command(name)) {
        Ok(matches) => start(&matches, handlers),
        // Prints help and version too, and ends with 0 for these and 2 for an error.
        Err(SettingsError::Flags(error)) => error.exit(),
        Err(error) => refuse(&Chain(&error)),
    }
}

/// The configuration is wrong, and nothing was contacted.
fn refuse(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::from(2)
}

fn command(name: &'static str) -> Command {
    let check = Arg::new("check").long("check").action(ArgAction::SetTrue);
    let check =
        check.help("Change nothing: say what there is to do, and end with 5 if there is anything");
    Command::new(name)
        .version(env!("CARGO_PKG_VERSION"))
        .about("Applies the write commands of a NATS JetStream stream to a PostgreSQL primary, exactly once and in order per key")
        .after_help(STATUSES)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(with_settings(Command::new("migrate").about("Prepares the database (schema farwrite) and the stream; safe to repeat").after_help(STATUSES), settings::ALL).arg(check))
        .subcommand(with_settings(Command::new("run").about("Applies commands until it is asked to stop").after_help(STATUSES), settings::ALL))
        .subcommand(adopt_command())
        .subcommands(operate::commands())
}

fn adopt_command() -> Command {
    let from = Arg::new("from").long("from").value_name("first|next|SEQUENCE");
    let from = from.help("Go on from the oldest message that the stream holds, behind the newest, or from this one [default with --recreate: first]");
    let from = from.value_parser(|text: &str| text.parse::<GoOnFrom>());
    let recreate = Arg::new("recreate").long("recreate").action(ArgAction::SetTrue);
    let recreate = recreate
        .help("The stream is gone: make it again, numbered on from what the database has applied");
    let reason = Arg::new("reason").long("reason").value_name("TEXT").required(true);
    let reason = reason.help("Why: written down with the act");
    let command = Command::new("adopt-stream")
        .about("Goes on with a stream that is not the one that the database knows, by an operator's word")
        .after_help(ADOPTION);
    with_settings(command, settings::ALL)
        .arg(from.required_unless_present("recreate"))
        .arg(recreate)
        .arg(reason)
}

/// What an operator decided about a stream.
fn adoption_of(matches: &ArgMatches) -> Result<Adoption, String> {
    let reason = text(matches, "reason").unwrap_or_default().trim().to_owned();
    if reason.is_empty() {
        return Err("reason: say why; it is written down with the act".to_owned());
    }
    let from = matches.get_one::<GoOnFrom>("from").copied().unwrap_or(GoOnFrom::First);
    Ok(Adoption { from, recreate: matches.get_flag("recreate"), reason })
}

async fn run_adopt(config: &Config, adoption: &Adoption) -> ExitCode {
    match adopt::adopt_stream(config, adoption).await {
        Ok(adopted) => {
            println!("{adopted}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            error!(%error, "adopt-stream");
            match &error {
                AdoptError::Stream(error) => status_of_stream(error),
                AdoptError::Primary(error) if !error.may_pass() => ExitCode::from(2),
                AdoptError::NotThere { .. } => ExitCode::from(2),
                AdoptError::Primary(_)
                | AdoptError::Owned
                | AdoptError::Missing(_)
                | AdoptError::Exists(_) => ExitCode::FAILURE,
            }
        }
    }
}

fn start(matches: &ArgMatches, handlers: Handlers) -> ExitCode {
    let Some((subcommand, matches)) = matches.subcommand() else { return ExitCode::from(2) };
    if let Err(message) = start_log(operate::innermost(matches)) {
        return refuse(&message);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the runtime does not start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match operate::operation(subcommand, matches) {
        Some(Ok(operation)) => return runtime.block_on(operate::run(operation, matches)),
        Some(Err(message)) => return refuse(&message),
        None => {}
    }
    let config = match config_of(matches) {
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
    match subcommand {
        "migrate" if matches.get_flag("check") => runtime.block_on(run_check(&config)),
        "migrate" => runtime.block_on(run_migrate(&config)),
        "adopt-stream" => match adoption_of(matches) {
            Ok(adoption) => runtime.block_on(run_adopt(&config, &adoption)),
            Err(message) => refuse(&message),
        },
        _ => match metrics_addr(matches) {
            Ok(addr) => runtime.block_on(run_worker(config, handlers, addr)),
            Err(message) => refuse(&message),
        },
    }
}

fn start_log(matches: &ArgMatches) -> Result<(), String> {
    let filter = text(matches, "log").unwrap_or_else(|| "info".to_owned());
    let filter = log::filter(&filter).map_err(|error| format!("log: {error}"))?;
    log::start(filter).map_err(|error| error.to_string())
}

async fn run_migrate(config: &Config) -> ExitCode {
    match migrate::migrate(config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(%error, "migrate");
            status_of_migrate(&error)
        }
    }
}

fn status_of_migrate(error: &MigrateError) -> ExitCode {
    match error {
        MigrateError::Stream(error) => status_of_stream(error),
        MigrateError::Primary(error) if !error.may_pass() => ExitCode::from(2),
        MigrateError::Primary(_) | MigrateError::Schema(_) => ExitCode::FAILURE,
    }
}

fn status_of_stream(error: &StreamError) -> ExitCode {
    match error {
        StreamError::Unknown { .. } => ExitCode::from(4),
        StreamError::Contract { .. } | StreamError::NotRegistered(_) => ExitCode::from(2),
        StreamError::Connect { .. } | StreamError::JetStream { .. } | StreamError::Sql(_) => {
            ExitCode::FAILURE
        }
    }
}

async fn run_check(config: &Config) -> ExitCode {
    let checked = match migrate::check(config).await {
        Ok(checked) => checked,
        Err(error) => {
            error!(%error, "migrate --check");
            return status_of_migrate(&error);
        }
    };
    let required =
        checked.required_protocol.map_or("any".to_owned(), |protocol| protocol.to_string());
    println!("schema    version {} (this program's: {})", checked.found, checked.needed);
    println!("protocol  {required} is required (this program speaks {})", checked.spoken_protocol);
    for (version, description) in &checked.pending {
        println!("pending   {version} {description}");
    }
    match checked.functions {
        FunctionsFound::Ready => println!("functions this program's"),
        FunctionsFound::Pending => println!("functions pending: migrate installs this program's"),
        FunctionsFound::Newer => println!("functions a newer program's: they stay"),
    }
    let stream = match &checked.stream {
        Ok(StreamFound::Ready) => {
            "is there, keeps the contract, and is the one that the database knows".to_owned()
        }
        Ok(StreamFound::Missing) => "is missing: migrate makes it".to_owned(),
        Ok(StreamFound::NotRegistered) => {
            "is there and keeps the contract; migrate tells the database of it".to_owned()
        }
        Err(error) => error.to_string(),
    };
    println!("stream    {}: {stream}", config.stream);
    if checked.is_too_new() {
        println!("the schema is too new for workers of this program: upgrade them");
        return ExitCode::from(2);
    }
    match checked.stream {
        Err(error) => status_of_stream(&error),
        Ok(_) if checked.is_pending() => {
            println!("migrate has something to do");
            ExitCode::from(5)
        }
        Ok(_) => {
            println!("up to date");
            ExitCode::SUCCESS
        }
    }
}

async fn run_worker(
    config: Config,
    handlers: Handlers,
    metrics_addr: Option<SocketAddr>,
) -> ExitCode {
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
    if let Some(addr) = metrics_addr
        && let Err(error) = serve_http(addr, worker.health()).await
    {
        error!(error = %Chain(&error), %addr, "metrics and readiness cannot be served");
        return ExitCode::from(2);
    }
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

/// Serves metrics and readiness until the process ends.
async fn serve_http(addr: SocketAddr, health: Health) -> Result<(), HttpError> {
    let serving = http::listen(addr, PrometheusBuilder::new(), health).await?;
    metrics::describe();
    tokio::spawn(serving);
    Ok(())
}

fn status_of(error: &WorkerError) -> ExitCode {
    match error {
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
