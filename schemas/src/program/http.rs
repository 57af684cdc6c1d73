//! A program's HTTP side: metrics, readiness and liveness.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode, body::Bytes, server::conn::http1, service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tracing::{debug, warn};

/// How often what is counted is tidied.
const UPKEEP: Duration = Duration::from_secs(5);
/// How long a client may take for its request.
const HEADERS_WITHIN: Duration = Duration::from_secs(10);
/// How long to wait when a connection cannot be accepted: out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a program tells.
pub trait Pages: Send + Sync + 'static {
    /// Its metrics, in Prometheus's format.
    fn metrics(&self) -> String;
    /// Keeps what is counted from growing: an exporter's histograms do until they are drained.
    fn tidy(&self);
    /// Why it is not ready, a line each; empty when it is.
    fn problems(&self) -> Vec<String>;
}

/// Listens; the address is taken before the program starts its work.
///
/// # Errors
/// The operating system's.
pub async fn listen(addr: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(addr).await
}

/// Answers for ever:
///
/// | path | answer |
/// |---|---|
/// | `/metrics` | metrics, in Prometheus's format |
/// | `/ready` | 200 while the program is ready; 503 and why otherwise |
/// | `/live` | 200: the process runs |
pub async fn serve<P: Pages>(listener: TcpListener, pages: P) -> Infallible {
    let pages = Arc::new(pages);
    let mut tidying = tokio::time::interval(UPKEEP);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = tidying.tick() => {
                pages.tidy();
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
                let response = answer(&request, &*pages);
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

fn answer<B>(request: &Request<B>, pages: &impl Pages) -> Response<Full<Bytes>> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics" | "/") => (StatusCode::OK, pages.metrics()),
        (&Method::GET | &Method::HEAD, "/live") => (StatusCode::OK, "live\n".to_owned()),
        (&Method::GET | &Method::HEAD, "/ready") => match pages.problems() {
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
