//! The program's HTTP side: metrics, readiness and liveness.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode, body::Bytes, server::conn::http1, service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tracing::{debug, warn};

use crate::health::Health;

/// How often the exporter tidies its histograms.
const UPKEEP: Duration = Duration::from_secs(5);
/// How long a client may take for its request.
const HEADERS_WITHIN: Duration = Duration::from_secs(10);
/// How long to wait when a connection cannot be accepted: out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listens; the address is taken before the worker starts.
pub(crate) async fn listen(addr: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(addr).await
}

/// Answers for ever:
///
/// | path | answer |
/// |---|---|
/// | `/metrics` | metrics, in Prometheus's format |
/// | `/ready` | 200 while the worker serves and every lane moves; 503 and why otherwise |
/// | `/live` | 200: the process runs |
pub(crate) async fn serve(listener: TcpListener, metrics: PrometheusHandle, health: Health) {
    let tidying = metrics.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP).await;
            tidying.run_upkeep();
        }
    });
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "an HTTP connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (metrics, health) = (metrics.clone(), health.clone());
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let response = answer(&request, &metrics, &health);
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

fn answer<B>(
    request: &Request<B>,
    metrics: &PrometheusHandle,
    health: &Health,
) -> Response<Full<Bytes>> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics" | "/") => (StatusCode::OK, metrics.render()),
        (&Method::GET | &Method::HEAD, "/live") => (StatusCode::OK, "live\n".to_owned()),
        (&Method::GET | &Method::HEAD, "/ready") => match health.problems() {
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
