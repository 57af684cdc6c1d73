//! `farwrite watcher run`: the watcher of a region with its metrics and readiness, until a signal.
//!
//! All that runs is owned by one `JoinSet`: the first task that ends ends the program, with a reason.

use std::{convert::Infallible, net::SocketAddr, process::ExitCode, time::Duration};

use anyhow::Context as _;
use async_nats::{Client, ConnectOptions, Event};
use farwrite_internal::{Health, program::http};
use farwrite_schemas::{NatsCredentials, NatsServers};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};

use crate::watcher::{RegionConfig, RegionError, metrics, watch_region};

use super::super::runtime::{FAILED, UNUSABLE};

/// Buckets of the wait histogram in seconds: around a round trip inside a region, around one
/// between regions, and around people's deadlines.
const WAIT_BUCKETS: [f64; 12] =
    [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];
/// A NATS connection that is silent for two of these is made anew.
const NATS_PING: Duration = Duration::from_secs(5);
/// The longest pause between two attempts to reach NATS: apps wait for this watcher meanwhile.
const NATS_PAUSE: Duration = Duration::from_millis(500);

/// What the program was told to do, checked.
#[derive(Debug)]
pub(super) struct WatcherSettings {
    pub(super) region: RegionConfig,
    pub(super) nats: NatsServers,
    pub(super) metrics_addr: Option<SocketAddr>,
}

pub(super) async fn run(settings: WatcherSettings) -> ExitCode {
    match watch(settings).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "stopped");
            ExitCode::from(match error.downcast_ref() {
                Some(RegionError::Config(_)) => UNUSABLE,
                _ => FAILED,
            })
        }
    }
}

/// Runs until a signal comes or a task ends.
async fn watch(settings: WatcherSettings) -> anyhow::Result<()> {
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
        database = %region.database(), region = %region.region(), "watching the replica"
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
    health.trouble("NATS", "not connected");
    let options = match servers.credentials {
        Some(NatsCredentials::Password { user, password }) => {
            ConnectOptions::with_user_and_password(user, password)
        }
        Some(NatsCredentials::Token(token)) => ConnectOptions::with_token(token),
        None => ConnectOptions::new(),
    };
    options
        .name("farwrite watcher")
        .retry_on_initial_connect()
        .ping_interval(NATS_PING)
        .reconnect_delay_callback(|attempt| {
            let attempt = u32::try_from(attempt).unwrap_or(u32::MAX).saturating_sub(1);
            Duration::from_millis(50).saturating_mul(attempt).min(NATS_PAUSE)
        })
        .event_callback(move |event| {
            match event {
                Event::Connected => health.over("NATS"),
                Event::Disconnected | Event::Closed => health.trouble("NATS", "not connected"),
                _ => {}
            }
            tracing::info!(%event, "NATS");
            std::future::ready(())
        })
        .connect(servers.urls)
        .await
}

async fn serve_http(
    tasks: &mut JoinSet<anyhow::Result<Infallible>>,
    addr: SocketAddr,
    health: Health,
) -> anyhow::Result<()> {
    let buckets = Matcher::Full(metrics::WAIT_SECONDS.to_owned());
    let recorder = PrometheusBuilder::new().set_buckets_for_metric(buckets, &WAIT_BUCKETS)?;
    let serving = http::listen(addr, recorder, health).await?;
    metrics::describe();
    tasks.spawn(async move { Ok(serving.await) });
    Ok(())
}
