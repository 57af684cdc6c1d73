//! Visible in other regions too.
//!
//! Each region's watcher is asked over NATS whether its replica shows a bookmark, and asked
//! again until it does or the time is up: a question that is lost, and a watcher that restarts,
//! only delay. Who is missing at the end is told by name, with what was heard last.

use std::{fmt, sync::Arc, time::Duration};

use async_nats::Subject;
use farwrite_schemas::{Bookmark, Origin, Subjects, VisibilityAnswer, VisibilityRequest};
use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    backoff,
    limits::TIMEOUT_MAX,
    link::{nats::NatsLink, question::Unanswered},
    metrics,
    reads::wait::BookmarkError,
};

/// A region that was not seen to show a bookmark.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MissingRegion {
    /// Which one.
    pub region: Origin,
    /// What was heard of it last.
    pub why: String,
}

impl fmt::Display for MissingRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.region, self.why)
    }
}

/// Why a bookmark is not known to be visible in every region that was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ElsewhereError {
    /// It belongs to another database.
    #[error(transparent)]
    Bookmark(#[from] BookmarkError),
    /// Some regions were not seen to show it in time.
    #[error("not known to be visible in {}", list(missing))]
    Missing {
        /// Those that do.
        visible: Vec<Origin>,
        /// Those that are not known to.
        missing: Vec<MissingRegion>,
    },
}

pub(crate) fn list(missing: &[MissingRegion]) -> String {
    let regions: Vec<String> = missing.iter().map(ToString::to_string).collect();
    regions.join("; ")
}

/// The watchers of all regions, as they are asked over NATS.
#[derive(Debug)]
pub(crate) struct OtherRegions {
    link: Arc<NatsLink>,
    subjects: Subjects,
}

impl OtherRegions {
    pub(crate) const fn new(link: Arc<NatsLink>, subjects: Subjects) -> Self {
        Self { link, subjects }
    }

    /// Waits until a bookmark is visible in each of some regions, for at most `timeout`.
    pub(crate) async fn wait(
        &self,
        bookmark: &Bookmark,
        regions: &[Origin],
        timeout: Duration,
    ) -> Result<(), ElsewhereError> {
        let deadline = Instant::now() + timeout.min(TIMEOUT_MAX);
        let missing = self.missing(bookmark, regions, deadline).await;
        if missing.is_empty() {
            return Ok(());
        }
        let is_missing = |region: &&Origin| missing.iter().any(|gone| gone.region == **region);
        let visible = regions.iter().filter(|region| !is_missing(region)).cloned().collect();
        Err(ElsewhereError::Missing { visible, missing })
    }

    /// The regions that do not show a bookmark by the deadline.
    pub(crate) async fn missing(
        &self,
        bookmark: &Bookmark,
        regions: &[Origin],
        deadline: Instant,
    ) -> Vec<MissingRegion> {
        let asking = regions.iter().map(|region| self.ask_region(bookmark, region, deadline));
        let answers = join_all(asking).await;
        let missing: Vec<_> = answers.into_iter().flatten().collect();
        metrics::asked_regions(regions.len() - missing.len(), missing.len());
        missing
    }

    async fn ask_region(
        &self,
        bookmark: &Bookmark,
        region: &Origin,
        deadline: Instant,
    ) -> Option<MissingRegion> {
        let subject = Subject::from(self.subjects.visibility(region));
        let mut why = "nobody was asked in time".to_owned();
        let asking = async {
            let mut backoff = backoff::publishing();
            loop {
                let left = deadline.saturating_duration_since(Instant::now());
                match self.ask_once(bookmark, &subject, left).await {
                    Ok(VisibilityAnswer::Visible) => return None,
                    Ok(VisibilityAnswer::Superseded { message }) => return Some(message),
                    // It has waited already.
                    Ok(VisibilityAnswer::NotYet { message }) => why = message,
                    Err(unanswered) => {
                        why = unanswered;
                        sleep(backoff.next_pause()).await;
                    }
                }
            }
        };
        let told = timeout_at(deadline, asking).await;
        let why = match told {
            Ok(told) => told?,
            Err(_) => why,
        };
        Some(MissingRegion { region: region.clone(), why })
    }

    async fn ask_once(
        &self,
        bookmark: &Bookmark,
        subject: &Subject,
        left: Duration,
    ) -> Result<VisibilityAnswer, String> {
        let within_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        let request = VisibilityRequest { bookmark: bookmark.clone(), within_ms };
        let question = serde_json::to_vec(&request).map_err(|error| error.to_string())?;
        let message = self.link.question(subject, question).await.map_err(|unanswered| {
            let why = match unanswered {
                Unanswered::NoService => "no watcher runs there",
                Unanswered::NotPermitted(subject) => return format!("not permitted: {subject}"),
                Unanswered::NotConnected => "NATS is not connected",
                Unanswered::Closed => "the connection to NATS was closed",
                Unanswered::Silence => "its watcher does not answer",
                Unanswered::Unreadable => "its answer cannot be read",
            };
            why.to_owned()
        })?;
        serde_json::from_slice(&message.payload)
            .map_err(|error| format!("its answer cannot be read: {error}"))
    }
}
