//! `farwrite worker run`: the worker with its metrics and readiness, until a signal.

use std::{net::SocketAddr, process::ExitCode};

use farwrite_internal::{
    Chain, Health,
    program::http::{self, HttpError},
};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::worker::{Config, Handlers, Worker, WorkerError, metrics};

use super::{
    super::runtime::{FAILED, UNUSABLE},
    migrate::OTHER_STREAM,
};

pub(super) async fn run(
    config: Config,
    handlers: Handlers,
    metrics_addr: Option<SocketAddr>,
) -> ExitCode {
    let stop = CancellationToken::new();
    if let Err(error) = stop_on_signals(stop.clone()) {
        error!(%error, "signals cannot be heard");
        return ExitCode::from(FAILED);
    }
    let worker = match Worker::new(config, handlers) {
        Ok(worker) => worker,
        Err(error) => {
            error!(%error, "configuration");
            return ExitCode::from(UNUSABLE);
        }
    };
    if let Some(addr) = metrics_addr
        && let Err(error) = serve_http(addr, worker.health()).await
    {
        error!(error = %Chain(&error), %addr, "metrics and readiness cannot be served");
        return ExitCode::from(UNUSABLE);
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
    ExitCode::from(match error {
        WorkerError::Stream(error) if error.is_other_stream() => OTHER_STREAM,
        WorkerError::Config(_) | WorkerError::Primary(_) | WorkerError::Stream(_) => UNUSABLE,
        _ => FAILED,
    })
}

fn stop_on_signals(stop: CancellationToken) -> std::io::Result<()> {
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
