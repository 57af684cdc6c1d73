//! The source of a watcher over NATS: it says what is waited for, and hears how far the replica has
//! come.
//!
//! The program is authoritative and this side keeps saying its interest while it lasts, so nothing
//! needs an acknowledgement: a lost message, a program or a broker that restarts, and an app that
//! comes late only delay. An interest is said
//!
//! - when somebody waits for more than was declared,
//! - when somebody waits only because the mark is not fresh (the program answers every interest),
//! - when somebody waits on a branch of history that is not known or in doubt,
//! - and again at an interval while anybody waits.
//!
//! It is not said while NATS is down: the client would keep it and deliver it late, and the
//! repetition does better.

use std::{sync::Arc, time::Duration};

use async_nats::{Client, Message, connection::State};
use farwrite_schemas::{BranchKnown, Epoch, Interest, Lsn, Origin, ReplicaProgress, Subjects};
use futures_util::StreamExt;
use tokio::time::{Instant, sleep_until};

use super::{
    config::NatsConfig,
    speaker::{Hearing, Speaker},
};
use crate::{
    answer::GoneReason,
    metrics,
    poll::{Audience, HistoryAnswer, ServerReport},
    waiters::Board,
};

pub(crate) struct RegionSource {
    client: Client,
    progress_subject: String,
    watch_subject: String,
    board: Arc<Board>,
    repeat: Duration,
    declared: Option<DeclaredInterest>,
    speaker: Speaker,
}

/// The last interest that was said, and not yet over.
#[derive(Clone, Debug)]
struct DeclaredInterest {
    lsn: Lsn,
    epochs: Vec<Epoch>,
    said_at: Instant,
}

impl RegionSource {
    pub(crate) fn new(
        client: Client,
        subjects: &Subjects,
        region: &Origin,
        board: Arc<Board>,
        config: &NatsConfig,
    ) -> Self {
        Self {
            client,
            progress_subject: subjects.progress(region),
            watch_subject: subjects.watch(region),
            board,
            repeat: config.repeat_interval(),
            declared: None,
            speaker: Speaker::new(config.limits().forget_after),
        }
    }

    /// Runs until the client is closed for good.
    pub(crate) async fn run(mut self) {
        let heard = match self.client.subscribe(self.progress_subject.clone()).await {
            Ok(heard) => heard,
            Err(error) => {
                tracing::error!(%error, "the region's progress cannot be listened to");
                return;
            }
        };
        let mut heard = heard.fuse();
        loop {
            let board = Arc::clone(&self.board);
            // What was heard first: it may end the interest. Then saying it, which is bounded by
            // the least interval. New callers last, since they only make an interest due.
            tokio::select! {
                biased;
                message = heard.next() => match message {
                    Some(message) => self.hear(&message).await,
                    None => break,
                },
                () = until(self.due()) => self.say().await,
                () = board.demanded() => {}
            }
        }
        tracing::warn!("the NATS client was closed: no progress will be heard any more");
    }

    /// When to say the interest; `None` while nobody waits.
    fn due(&mut self) -> Option<Instant> {
        let Some(wanted) = self.board.wanted() else {
            self.declared = None;
            return None;
        };
        let Some(declared) = &self.declared else { return Some(Instant::now()) };
        let is_news = wanted.highest > declared.lsn
            || wanted.renew_after.is_some_and(|moment| declared.said_at < moment)
            || wanted.epochs.iter().any(|epoch| !declared.epochs.contains(epoch));
        let pause = if is_news {
            NatsConfig::LEAST_INTERVAL
        } else if wanted.epochs.is_empty() {
            self.repeat
        } else {
            NatsConfig::DOUBT_INTERVAL
        };
        Some(declared.said_at + pause)
    }

    async fn say(&mut self) {
        let Some(wanted) = self.board.wanted() else { return };
        let (lsn, epochs) = (wanted.highest, wanted.epochs);
        let (said_at, asked) = (Instant::now(), epochs.clone());
        self.declared = Some(DeclaredInterest { lsn, epochs: asked, said_at });
        if self.client.connection_state() != State::Connected {
            return self.board.lost(GoneReason::NatsDown).await;
        }
        self.board.way_is_open();
        self.board.asking();
        let Ok(interest) = serde_json::to_vec(&Interest { lsn, epochs }) else { return };
        metrics::interest();
        if let Err(error) = self.client.publish(self.watch_subject.clone(), interest.into()).await {
            tracing::warn!(%error, "an interest could not be published");
        }
    }

    async fn hear(&mut self, message: &Message) {
        let progress: ReplicaProgress = match serde_json::from_slice(&message.payload) {
            Ok(progress) => progress,
            Err(error) => {
                tracing::warn!(%error, "a message of progress could not be read");
                return;
            }
        };
        let hearing = self.speaker.hear(&progress, Instant::now());
        let ReplicaProgress {
            replayed,
            server_start_us,
            in_recovery,
            timeline,
            identity,
            mut branches,
            unreadable,
        } = progress;
        match hearing {
            Hearing::PassedOver => return,
            Hearing::Positions => {
                branches.retain(|branch| matches!(branch.known, BranchKnown::Held { .. }));
            }
            Hearing::Believed => {}
            Hearing::Anew => self.board.lost(GoneReason::ToldByWatcher).await,
        }
        if replayed.is_none() && in_recovery {
            return self.board.lost(GoneReason::ToldByWatcher).await;
        }
        let report = ServerReport { replayed, timeline, server_start_us, in_recovery, identity };
        self.board.saw(report).await;
        let is_present = self.board.server_start_us() == Some(server_start_us);
        if is_present && (!branches.is_empty() || unreadable.is_some()) {
            let unreadable = unreadable.map(Into::into);
            self.board.told(HistoryAnswer { branches, unreadable }).await;
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}
