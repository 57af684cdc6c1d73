//! `lsn-watcher`: one watcher for a region; see `lsn-watcher run --help`.
//!
//! It is the library's [`watch_region`] with settings, a log, a metrics endpoint and signals. All
//! that runs is owned by one `JoinSet`: the first task that ends ends the program, with a reason.

mod cli;

use std::{convert::Infallible, net::SocketAddr, process::ExitCode, time::Duration};

use anyhow::Context as _;
use async_nats::{Client, ConnectOptions, Event};
use farwrite_lsn_watcher::{Health, RegionError, metrics, watch_region};
use farwrite_schemas::{
    NatsCredentials, NatsServers,
    program::{
        http,
        settings::{self, SettingsError},
    },
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tracing_subscriber::{fmt, layer::SubscriberExt as _};

use crate::cli::Settings;

const FAILED: u8 = 1;
const BAD_SETTINGS: u8 = 2;

/// Buckets of the wait histogram in seconds: around a round trip inside a region, around one
/// between regions, and around people's deadlines.
const WAIT_BUCKETS: [f64; 12] =
    [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];
/// How long tasks may take to end after the last word.
const END_TIMEOUT: Duration = Duration::from_millis(500);
/// A NATS connection that is silent for two of these is made anew.
const NATS_PING: Duration = Duration::from_secs(5);
/// The longest pause between two attempts to reach NATS: apps wait for this watcher meanwhile.
const NATS_PAUSE: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let matches = match settings::parse(cli::command()) {
        Ok(matches) => matches,
        // Prints help and version too, and ends with 0 for these and 2 for an error.
        Err(SettingsError::Flags(error)) => error.exit(),
        Err(error) => return refuse(&error),
    };
    let Some(run) = matches.subcommand_matches("run") else {
        return ExitCode::from(BAD_SETTINGS);
    };
    match Settings::read(run) {
        Ok(settings) => start(settings),
        Err(error) => refuse(&error),
    }
}

fn refuse(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("lsn-watcher: {error}");
    ExitCode::from(BAD_SETTINGS)
}

fn start(settings: Settings) -> ExitCode {
    let log = fmt().with_max_level(tracing::Level::TRACE).with_writer(std::io::stderr);
    let log = log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).finish();
    if tracing::subscriber::set_global_default(log.with(settings.log.clone())).is_err() {
        return ExitCode::from(FAILED);
    }
    let runtime =
        match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                tracing::error!(%error, "the runtime cannot be started");
                return ExitCode::from(FAILED);
            }
        };
    let ended = runtime.block_on(run(settings));
    runtime.shutdown_timeout(END_TIMEOUT);
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "stopped");
            match error.downcast_ref() {
                Some(RegionError::Config(_)) => ExitCode::from(BAD_SETTINGS),
                _ => ExitCode::from(FAILED),
            }
        }
    }
}

/// Runs until a signal comes or a task ends.
async fn run(settings: Settings) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    let mut tasks: JoinSet<anyhow::Result<Infallible>> = JoinSet::new();
    let health = Health::default();
    if let Some(addr) = settings.metrics_addr {
        serve_http(&mut tasks, addr, health.clone()).await.context("the HTTP side")?;
    }
    let client = connect(settings.nats, health.clone()).await.context("NATS")?;
    let region = settings.region;
    tracing::info!(
        database = %region.subjects.database(), region = %region.region, "watching the replica"
    );
    tasks.spawn(async move { Ok(watch_region(client, region, health).await?) });
    // A signal first: it must end the program whatever the tasks are doing.
    tokio::select! {
        biased;
        _ = terminate.recv() => tracing::info!("stopped by SIGTERM"),
        _ = interrupt.recv() => tracing::info!("stopped by SIGINT"),
        Some(ended) = tasks.join_next() => match ended.context("a task failed")?? {},
    }
    tasks.shutdown().await;
    Ok(())
}

/// Connects in the background: watcher and broker may start in any order, and a broker that is
/// away at the start is no different from one that goes away later. Refused credentials end the
/// client for good, and with it the program.
async fn connect(servers: NatsServers, health: Health) -> Result<Client, async_nats::ConnectError> {
    // Until it says so itself.
    health.nats(false);
    let options = match servers.credentials {
        Some(NatsCredentials::Password { user, password }) => {
            ConnectOptions::with_user_and_password(user, password)
        }
        Some(NatsCredentials::Token(token)) => ConnectOptions::with_token(token),
        None => ConnectOptions::new(),
    };
    options
        .name("farwrite lsn-watcher")
        .retry_on_initial_connect()
        .ping_interval(NATS_PING)
        .reconnect_delay_callback(|attempt| {
            let attempt = u32::try_from(attempt).unwrap_or(u32::MAX).saturating_sub(1);
            Duration::from_millis(50).saturating_mul(attempt).min(NATS_PAUSE)
        })
        .event_callback(move |event| {
            match event {
                Event::Connected => health.nats(true),
                Event::Disconnected | Event::Closed => health.nats(false),
                _ => {}
            }
            tracing::info!(%event, "NATS");
            std::future::ready(())
        })
        .connect(servers.urls)
        .await
}

/// What is told over HTTP.
struct Pages {
    metrics: PrometheusHandle,
    health: Health,
}

impl http::Pages for Pages {
    fn metrics(&self) -> String {
        self.metrics.render()
    }

    fn tidy(&self) {
        self.metrics.run_upkeep();
    }

    fn problems(&self) -> Vec<String> {
        self.health.problems()
    }
}

async fn serve_http(
    tasks: &mut JoinSet<anyhow::Result<Infallible>>,
    addr: SocketAddr,
    health: Health,
) -> anyhow::Result<()> {
    let listener = http::listen(addr).await?;
    let addr = listener.local_addr()?;
    let buckets = Matcher::Full(metrics::WAIT_SECONDS.to_owned());
    let recorder = PrometheusBuilder::new().set_buckets_for_metric(buckets, &WAIT_BUCKETS)?;
    let pages = Pages { metrics: recorder.install_recorder()?, health };
    metrics::describe();
    tracing::info!(%addr, "metrics and readiness are served");
    tasks.spawn(async move { Ok(http::serve(listener, pages).await) });
    Ok(())
}
