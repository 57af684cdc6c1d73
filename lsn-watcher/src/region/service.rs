//! The region's service: tells other regions when a bookmark is visible here.
//!
//! A NATS service, so that `nats micro` finds every region's watcher and shows its statistics. A
//! question waits on a watcher like any app's, over the region's own subjects. It is answered when
//! the bookmark is visible, or when the asker's patience is over. An asker that waits longer asks
//! again, so that a lost message or a restarted watcher only delays.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_nats::{
    Client,
    service::{Request, ServiceExt},
};
use farwrite_schemas::{Origin, Subjects, VisibilityAnswer, VisibilityRequest};
use futures_util::StreamExt;
use tokio::{sync::Semaphore, task::JoinSet};

use crate::{answer::WaitError, over_nats::NatsConfig, watcher::Watcher};

/// The longest that one question waits: less than an asker's patience with a silent service.
const LONGEST: Duration = Duration::from_secs(1);
/// Questions that wait at once; further ones are told "not yet" without a look.
const AT_ONCE: usize = 10_000;

/// Why the service ended; it is begun anew.
#[derive(Debug, thiserror::Error)]
#[error("the region's service: {0}")]
pub(crate) struct ServiceEnd(String);

/// Answers until NATS fails.
pub(crate) async fn serve(client: Client, subjects: &Subjects, region: &Origin) -> ServiceEnd {
    let end = |error: &dyn std::fmt::Display| ServiceEnd(error.to_string());
    let watcher = match Watcher::over_nats(client.clone(), subjects, region, NatsConfig::default())
    {
        Ok(watcher) => watcher,
        Err(error) => return end(&error),
    };
    let database = subjects.database();
    let about = [("database", database.as_str()), ("region", region.as_str())];
    let about: HashMap<_, _> =
        about.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let service = client
        .service_builder()
        .description(format!("Tells when the replica of {database} in {region} shows a bookmark"))
        .metadata(about)
        .start(format!("farwrite-watcher-{database}"), env!("CARGO_PKG_VERSION"))
        .await;
    let service = match service {
        Ok(service) => service,
        Err(error) => return end(&error),
    };
    let endpoint = service.endpoint_builder().name("visibility");
    let mut questions = match endpoint.add(subjects.visibility(region)).await {
        Ok(questions) => questions,
        Err(error) => return end(&error),
    };
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    let mut answering = JoinSet::new();
    loop {
        tokio::select! {
            question = questions.next() => match question {
                Some(question) => {
                    let slot = Arc::clone(&slots).try_acquire_owned();
                    let watcher = watcher.clone();
                    answering.spawn(async move {
                        let within = if slot.is_ok() { LONGEST } else { Duration::ZERO };
                        answer(question, &watcher, within).await;
                    });
                }
                None => return end(&"its subscription ended"),
            },
            Some(_) = answering.join_next() => {}
        }
    }
}

async fn answer(question: Request, watcher: &Watcher, longest: Duration) {
    let request: VisibilityRequest = match serde_json::from_slice(&question.message.payload) {
        Ok(request) => request,
        Err(error) => {
            let refusal = async_nats::service::error::Error {
                code: 400,
                status: format!("the question cannot be read: {error}"),
            };
            let _ = question.respond(Err(refusal)).await;
            return;
        }
    };
    let within = Duration::from_millis(request.within_ms).min(longest);
    let answer = match watcher.wait(&request.bookmark, within).await {
        Ok(_) => VisibilityAnswer::Visible,
        Err(error @ (WaitError::Superseded { .. } | WaitError::Implausible { .. })) => {
            VisibilityAnswer::Superseded { message: error.to_string() }
        }
        Err(error) => VisibilityAnswer::NotYet { message: error.to_string() },
    };
    let Ok(payload) = serde_json::to_vec(&answer) else { return };
    if let Err(error) = question.respond(Ok(payload.into())).await {
        tracing::debug!(%error, "an answer could not be sent");
    }
}
