//! A program's HTTP side: metrics, readiness and liveness.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode, body::Bytes, server::conn::http1, service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tracing::{debug, info, warn};

use crate::health::Health;

/// How often the recorder is drained: its histograms grow until they are.
const UPKEEP: Duration = Duration::from_secs(5);
/// How long a client may take for its request.
const HEADERS_WITHIN: Duration = Duration::from_secs(10);
/// How long to wait when a connection cannot be accepted: out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a program shows over HTTP.
struct Pages {
    metrics: PrometheusHandle,
    health: Health,
}

/// Why metrics and readiness cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// The address cannot be listened on.
    #[error("cannot listen")]
    Listen(#[from] std::io::Error),
    /// The process has a recorder of metrics already.
    #[error("metrics cannot be recorded")]
    Recorder(#[from] BuildError),
}

/// Takes the address and makes `recorder` the recorder of this process, before the program starts
/// its work. What comes back serves for ever:
///
/// | path | answer |
/// |---|---|
/// | `/metrics` | metrics, in Prometheus's format |
/// | `/ready` | 200 while the program is ready; 503 and why otherwise |
/// | `/live` | 200: the process runs |
///
/// # Errors
/// When the address is taken, or the process has a recorder already.
pub async fn listen(
    addr: SocketAddr,
    recorder: PrometheusBuilder,
    health: Health,
) -> Result<impl Future<Output = Infallible> + Send, HttpError> {
    let listener = TcpListener::bind(addr).await?;
    info!(addr = %listener.local_addr()?, "metrics and readiness are served");
    let metrics = recorder.install_recorder()?;
    Ok(serve(listener, Arc::new(Pages { metrics, health })))
}

async fn serve(listener: TcpListener, pages: Arc<Pages>) -> Infallible {
    let mut tidying = tokio::time::interval(UPKEEP);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = tidying.tick() => {
                pages.metrics.run_upkeep();
                continue;
            }
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "an HTTP connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let pages = Arc::clone(&pages);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let response = answer(&request, &pages);
                async move { Ok::<_, Infallible>(response) }
            });
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEADERS_WITHIN);
            if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
                debug!(%error, "an HTTP connection ended");
            }
        });
    }
}

fn answer<B>(request: &Request<B>, pages: &Pages) -> Response<Full<Bytes>> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics" | "/") => {
            (StatusCode::OK, pages.metrics.render())
        }
        (&Method::GET | &Method::HEAD, "/live") => (StatusCode::OK, "live\n".to_owned()),
        (&Method::GET | &Method::HEAD, "/ready") => match pages.health.problems() {
            problems if problems.is_empty() => (StatusCode::OK, "ready\n".to_owned()),
            problems => (StatusCode::SERVICE_UNAVAILABLE, problems.join("\n") + "\n"),
        },
        (&Method::GET | &Method::HEAD, _) => {
            (StatusCode::NOT_FOUND, "there are /metrics, /ready and /live\n".to_owned())
        }
        _ => (StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response
}
