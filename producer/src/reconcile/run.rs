//! One run: asks how every entry of the journal ended, and has sent again what is lost.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use farwrite_schemas::{NotEnded, OutcomeAnswer, Reply};
use futures_util::{StreamExt, stream};
use tokio::time::timeout;

use super::{
    judge::{EntryStanding, Heard, standing},
    options::{ReconcileError, ReconcileOptions},
    plan::{self, JudgedEntry},
    port::Port,
    report::{ReconcileReport, WhyUnknown},
};
use crate::{
    journal::{Keeping, Listed, now_ms},
    outbox::message::fingerprint,
    producer::Producer,
    questions::ledger::LedgerAnswer,
};

/// The sources that did not answer in this run, and are not asked any more.
#[derive(Debug)]
struct SilentSources {
    service: AtomicBool,
    database: AtomicBool,
}

impl Producer {
    /// Goes through the journal: asks how the commands ended that were sent a while ago, forgets
    /// those that did, and sends those again, with the same ids and a key's in their order, that
    /// the stream has lost. To be called when the app starts, and then every minute or so, by one
    /// task of it.
    ///
    /// A command is lost when the worker has passed the time at which the stream acknowledged it
    /// ([`Producer::lag`]), and the ledger does not know it, nor is it parked. One whose publish
    /// had no answer is judged by the time at which that was given up. While no worker answers,
    /// commands are unknown, and nothing is sent. To run it again does no harm, and neither does
    /// dropping it.
    ///
    /// Sent again, a command has no second effect, for as long as the ledger keeps the first one
    /// ([`ReconcileOptions::max_age`]). Its order within its key is kept towards what else was
    /// lost; what was published later and not lost has overtaken it
    /// ([`Overtaken`](crate::Overtaken)). An expiry counts as before: one that has passed ends as
    /// expired.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use farwrite_producer::{Builder, Journal, JournalLimits, Producer, ReconcileOptions};
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let journal = Journal::file("/var/lib/shop/farwrite.journal", JournalLimits::default());
    /// let producer = Builder::from_env()?.journal(journal).connect().await?;
    /// let reconciling = producer.clone();
    /// tokio::spawn(async move {
    ///     let mut minute = tokio::time::interval(Duration::from_secs(60));
    ///     loop {
    ///         minute.tick().await;
    ///         match reconciling.reconcile(ReconcileOptions::default()).await {
    ///             Ok(report) if report.needs_a_look() => eprintln!("{report:?}"),
    ///             Ok(_) => {}
    ///             Err(error) => eprintln!("{error}"),
    ///         }
    ///     }
    /// });
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When the producer has no journal, or an option breaks its rule. What could not be found out
    /// or sent is in the report.
    pub async fn reconcile(
        &self,
        options: ReconcileOptions,
    ) -> Result<ReconcileReport, ReconcileError> {
        options.validate()?;
        let parts = &self.parts;
        let journal = parts.journal.as_ref().ok_or(ReconcileError::NoJournal)?;
        let _one_at_a_time = parts.reconciling.lock().await;
        let port = Port::new(&parts.outbox, &parts.questions);
        let mut report = ReconcileReport::default();
        let items = port.look(journal, &options, &mut report).await;
        for JudgedEntry { listed, standing } in &items {
            if let EntryStanding::Ended(_) = standing {
                journal.end(listed.message.id);
            }
            report.count(listed, *standing);
        }
        let options = &options;
        let sending = plan::by_key(items)
            .into_iter()
            .map(|items| async move { port.send_lost(journal, &items, options).await });
        let mut sent = stream::iter(sending).buffer_unordered(options.concurrency);
        while let Some(of_one_key) = sent.next().await {
            report.add(of_one_key);
        }
        report.tell();
        Ok(report)
    }
}

impl Port<'_> {
    /// What every entry of the journal is.
    async fn look(
        &self,
        journal: &Arc<Keeping>,
        options: &ReconcileOptions,
        report: &mut ReconcileReport,
    ) -> Vec<JudgedEntry> {
        let now_ms = now_ms();
        let age = |at_ms| Duration::from_millis(now_ms.saturating_sub(at_ms));
        let is_due =
            |entry: &Listed| !entry.is_under_way && age(entry.tried_at_ms) >= options.min_age;
        // Before anybody is asked: what ends meanwhile is found to have ended.
        let listed = journal.list();
        let mut behind = None;
        if listed.iter().any(is_due) {
            // Before the outcomes: what the worker had passed by then, it knows when it is asked.
            match self.lag(options.timeout).await {
                Ok(lag) => {
                    behind = Some(Duration::try_from_secs_f64(lag.seconds).unwrap_or(Duration::MAX))
                }
                Err(error) => report.why_unknown = Some(WhyUnknown::NoLag(error)),
            }
        }
        let away =
            SilentSources { service: AtomicBool::new(behind.is_none()), database: false.into() };
        let judged = listed.into_iter().map(|entry| async {
            let standing = if entry.is_under_way {
                EntryStanding::UnderWay
            } else if age(entry.tried_at_ms) < options.min_age {
                EntryStanding::Young
            } else {
                let heard = self.hear(&entry, options.timeout, &away).await;
                standing(
                    heard,
                    age(entry.tried_at_ms),
                    age(entry.sent_at_ms),
                    behind,
                    options.max_age,
                )
            };
            JudgedEntry { listed: entry, standing }
        });
        let items = stream::iter(judged).buffered(options.concurrency).collect().await;
        if report.why_unknown.is_none() && away.service.load(Ordering::Relaxed) {
            report.why_unknown = Some(WhyUnknown::Silence);
        }
        items
    }

    /// Asks how one command ended: the worker, and where that is away the database that is read.
    /// A source that fails once is not asked again in this run: the next run will tell.
    async fn hear(&self, entry: &Listed, time: Duration, away: &SilentSources) -> Heard {
        let message = &entry.message;
        if !away.service.load(Ordering::Relaxed) {
            let (key, body) = (message.key.as_ref(), &message.body);
            let fingerprint = fingerprint(&message.target, message.version, key, body);
            match self.ask(message.id, fingerprint).await {
                Ok(OutcomeAnswer::Known(Reply { outcome, .. })) => return Heard::ended(&outcome),
                Ok(OutcomeAnswer::Pending(NotEnded { parked: Some(_), .. })) => {
                    return Heard::Parked;
                }
                Ok(OutcomeAnswer::Pending(NotEnded { parked: None, .. })) => {
                    return Heard::NotEnded;
                }
                Err(unanswered) => {
                    tracing::debug!(id = %message.id, ?unanswered, "an outcome was not told");
                    away.service.store(true, Ordering::Relaxed);
                }
            }
        }
        if away.database.load(Ordering::Relaxed) {
            return Heard::Nothing;
        }
        match timeout(time, self.read(message.id)).await {
            Ok(Some(Ok(LedgerAnswer::Ended(reply)))) => Heard::ended(&reply.outcome),
            // What was parked is no longer in the stream's hands, also as a replica sees it.
            Ok(Some(Ok(LedgerAnswer::NotEnded { parked: Some(_), .. }))) => Heard::Parked,
            Ok(Some(Ok(LedgerAnswer::NotEnded { parked: None, .. }))) => Heard::Nothing,
            Ok(None) => {
                away.database.store(true, Ordering::Relaxed);
                Heard::Nothing
            }
            // Counted where it was read.
            Ok(Some(Err(_))) | Err(_) => {
                away.database.store(true, Ordering::Relaxed);
                Heard::Nothing
            }
        }
    }
}
