//! The layer: waits or routes before the handler, sets the newer bookmark after it.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use farwrite_schemas::Origin;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use sqlx::PgPool;
use tower_layer::Layer;
use tower_service::Service;

use super::{session::Session, token::Token};
use crate::{
    Bookmark, BookmarkError, BookmarkKey, NoReads, Producer, ServerRole, WaitError, metrics,
};

/// How long a request waits for this region where there is no other place to read: longer than a
/// replica anywhere in the world is usually late.
const ALONE_BUDGET: Duration = Duration::from_secs(1);

/// What is done with a request whose bookmark is not visible here in time.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Late {
    /// It is served with what this region shows: [`Session::is_stale`] says so, and the response
    /// carries `farwrite-stale: 1`.
    Stale,
    /// It reads on the primary, where the producer has one; else it is [`Late::Unavailable`].
    Primary,
    /// It is answered with 503 and `Retry-After`.
    Unavailable {
        /// When to come again; whole seconds, at least one.
        retry_after: Duration,
    },
    /// It is answered with Fly's header `fly-replay`, which has the platform send it to another
    /// region.
    FlyReplay {
        /// Which region; the primary's.
        region: Origin,
    },
}

/// Makes a service's requests see what their user saw before. See [the module](super).
#[derive(Clone, Debug)]
pub struct BookmarkLayer {
    producer: Producer,
    pool: PgPool,
    token: Token,
    late: Late,
    budget: Duration,
    monotonic: bool,
}

impl BookmarkLayer {
    /// A layer with a cookie `farwrite` (for ten minutes, `Secure`), another one with `-read` behind its name
    /// for what was read (see [`monotonic_reads`](Self::monotonic_reads)), and a header `farwrite-bookmark`, which reads on the primary when this region is late.
    ///
    /// # Errors
    /// When the producer has no pool to read with.
    pub fn new(producer: Producer) -> Result<Self, NoReads> {
        let pool = producer.reads()?.clone();
        let has_primary = producer.parts.reads.fallback().is_some();
        let budget = if has_primary { producer.parts.reads.budget } else { ALONE_BUDGET };
        let token = Token {
            cookie: Some("farwrite".to_owned()),
            header: Some(HeaderName::from_static("farwrite-bookmark")),
            key: None,
            max_age: Duration::from_secs(600),
            secure: true,
        };
        Ok(Self { producer, pool, token, late: Late::Primary, budget, monotonic: false })
    }

    /// The name of the cookie, or none. It holds letters, digits, `-` and `_` only; other characters
    /// are left out.
    #[must_use]
    pub fn cookie(mut self, name: Option<&str>) -> Self {
        let is_plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        self.token.cookie = name.map(|name| name.chars().filter(is_plain).collect());
        self
    }

    /// The header, or none.
    #[must_use]
    pub fn header(mut self, name: Option<HeaderName>) -> Self {
        self.token.header = name;
        self
    }

    /// For how long a user's browser keeps the cookie. Longer than any replica is late.
    #[must_use]
    pub fn max_age(mut self, max_age: Duration) -> Self {
        self.token.max_age = max_age;
        self
    }

    /// Whether the cookie travels over TLS only; true unless said otherwise.
    #[must_use]
    pub fn secure(mut self, secure: bool) -> Self {
        self.token.secure = secure;
        self
    }

    /// Signs bookmarks, and believes signed ones only.
    #[must_use]
    pub fn key(mut self, key: BookmarkKey) -> Self {
        self.token.key = Some(key);
        self
    }

    /// What is done when this region is late.
    #[must_use]
    pub fn late(mut self, late: Late) -> Self {
        self.late = late;
        self
    }

    /// How long a request waits for this region: the producer's
    /// [`read_budget`](crate::Limits::read_budget) where it has a primary to read instead, else a
    /// second, unless said otherwise. With [`Late::Primary`] and a primary the producer's counts.
    #[must_use]
    pub fn budget(mut self, budget: Duration) -> Self {
        self.budget = budget;
        self
    }

    /// Reads never go back either: each response has a bookmark of what its request could read, not
    /// only of what it wrote. One more question to the database a request.
    #[must_use]
    pub fn monotonic_reads(mut self, monotonic: bool) -> Self {
        self.monotonic = monotonic;
        self
    }

    /// Finds a pool for a request.
    async fn open(&self, bookmarks: Vec<Bookmark>) -> Result<OpenedRequest, Late> {
        let count = bookmarks.len();
        for (index, bookmark) in bookmarks.into_iter().enumerate() {
            // What nothing can satisfy is taken back, unless there is another one.
            match self.open_at(Some(bookmark)).await? {
                OpenedRequest::Forget(_) if index + 1 < count => {}
                opened => return Ok(opened),
            }
        }
        self.open_at(None).await
    }

    async fn open_at(&self, bookmark: Option<Bookmark>) -> Result<OpenedRequest, Late> {
        let is_primary = self.producer.parts.reads.are_on_primary();
        let from = if is_primary { ServerRole::Primary } else { ServerRole::Replica };
        let here = |is_stale, bookmark| {
            let producer = self.producer.clone();
            Session::new(producer, self.pool.clone(), from, is_stale, bookmark)
        };
        // Another database's is none of ours.
        let ours = |bookmark: &Bookmark| self.producer.parts.reads.check(bookmark).is_ok();
        let Some(bookmark) = bookmark.filter(ours) else {
            return Ok(OpenedRequest::Serve(here(false, None)));
        };
        if self.late == Late::Primary && self.producer.parts.reads.fallback().is_some() {
            return match self.producer.read_at(&bookmark).await {
                Ok(read) => {
                    let (producer, pool) = (self.producer.clone(), read.pool.clone());
                    Ok(OpenedRequest::Serve(Session::new(
                        producer,
                        pool,
                        read.from,
                        false,
                        Some(bookmark),
                    )))
                }
                Err(error) if error.is_superseded() => Ok(OpenedRequest::Forget(here(false, None))),
                Err(error) => {
                    tracing::warn!(%error, "a request's bookmark can be read nowhere");
                    Err(Late::Unavailable { retry_after: Duration::from_secs(1) })
                }
            };
        }
        match self.producer.wait_within(&bookmark, self.budget).await {
            Ok(()) => Ok(OpenedRequest::Serve(here(false, Some(bookmark)))),
            // Nothing can satisfy it.
            Err(BookmarkError::Wait(error))
                if matches!(
                    *error,
                    WaitError::Superseded { .. } | WaitError::Implausible { .. }
                ) =>
            {
                Ok(OpenedRequest::Forget(here(false, None)))
            }
            Err(_) if self.late == Late::Stale => {
                Ok(OpenedRequest::Serve(here(true, Some(bookmark))))
            }
            Err(_) => Err(self.late.clone()),
        }
    }

    /// Notes what a request could read, after it has read it.
    async fn note_reads(&self, session: &Session) {
        let noting = async {
            let mut connection = session.pool().acquire().await?;
            self.producer.bookmark(&mut connection).await
        };
        match noting.await {
            Ok(Some(bookmark)) => session.note_read(&bookmark),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "a request's reads have no bookmark"),
        }
    }
}

/// How a request goes on.
enum OpenedRequest {
    Serve(Session),
    /// Its bookmark is taken back.
    Forget(Session),
}

impl<S> Layer<S> for BookmarkLayer {
    type Service = BookmarkService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        BookmarkService { inner, layer: self.clone() }
    }
}

/// A service behind a [`BookmarkLayer`].
#[derive(Clone, Debug)]
pub struct BookmarkService<S> {
    inner: S,
    layer: BookmarkLayer,
}

impl<S, B, R> Service<Request<B>> for BookmarkService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    B: Send + 'static,
    R: Default + Send,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        // The one that was found ready is used, and a clone is left for the next request.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let layer = self.layer.clone();
        Box::pin(async move {
            let bookmarks = layer.token.read(request.headers());
            let (session, forget) = match layer.open(bookmarks).await {
                Ok(OpenedRequest::Serve(session)) => (session, false),
                Ok(OpenedRequest::Forget(session)) => (session, true),
                Err(late) => {
                    metrics::request_late(late.as_str());
                    return Ok(refusal(&late));
                }
            };
            if session.is_stale() {
                metrics::request_late(Late::Stale.as_str());
            }
            request.extensions_mut().insert(session.clone());
            let mut response = inner.call(request).await?;
            // A stale read has seen less than its user.
            if layer.monotonic && !session.is_stale() {
                layer.note_reads(&session).await;
            }
            let headers = response.headers_mut();
            if session.is_stale() {
                let name = HeaderName::from_static("farwrite-stale");
                headers.insert(name, HeaderValue::from_static("1"));
            }
            let noted = session.news();
            if forget && noted.latest().is_none() {
                layer.token.drop(headers);
            }
            layer.token.write(headers, &noted);
            Ok(response)
        })
    }
}

impl Late {
    /// As a metric's label.
    const fn as_str(&self) -> &'static str {
        match self {
            Self::Stale => "stale",
            Self::Primary => "primary",
            Self::Unavailable { .. } => "unavailable",
            Self::FlyReplay { .. } => "fly_replay",
        }
    }
}

/// The answer to a request that is not served here.
fn refusal<R: Default>(late: &Late) -> Response<R> {
    let mut response = Response::new(R::default());
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    let (name, value) = match late {
        Late::FlyReplay { region } => {
            // The platform takes the response and sends the request there.
            *response.status_mut() = StatusCode::CONFLICT;
            (HeaderName::from_static("fly-replay"), format!("region={region}"))
        }
        Late::Unavailable { retry_after } => {
            (header::RETRY_AFTER, retry_after.as_secs().max(1).to_string())
        }
        Late::Stale | Late::Primary => (header::RETRY_AFTER, "1".to_owned()),
    };
    if let Ok(value) = HeaderValue::from_str(&value) {
        response.headers_mut().insert(name, value);
    }
    response
}
