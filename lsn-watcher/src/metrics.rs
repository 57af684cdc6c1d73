//! The watcher's metrics: every name, unit and description once, and a verb for each event.
//!
//! | name | kind | unit | what |
//! |---|---|---|---|
//! | `farwrite_watcher_waiters` | gauge | callers | callers of this process that wait |
//! | `farwrite_watcher_polls_total` | counter | polls | questions to the replica |
//! | `farwrite_watcher_history_polls_total` | counter | polls | questions to the replica's history, for a branch that was not known or in doubt |
//! | `farwrite_watcher_replay_lsn` | gauge | bytes | the replayed position last seen |
//! | `farwrite_watcher_last_replayed_commit_age_seconds` | gauge | seconds | age of the last replayed commit, read once a second while somebody waits; grows on an idle primary too |
//! | `farwrite_watcher_wait_seconds` | histogram | seconds | time that a caller waited, by `result` |
//! | `farwrite_watcher_reconnects_total` | counter | connections | the replica answered again after it could not be asked |
//! | `farwrite_watcher_broadcasts_total` | counter | messages | progress told to the region's apps |
//! | `farwrite_watcher_interests_total` | counter | messages | interests said (app) or heard (program) |
//!
//! Results of a wait: `reached`, `timed_out`, `replica_gone`, `superseded`, `implausible`,
//! `not_a_replica`, `too_many_waiters`, `closed`. A wait that its caller dropped is not counted.

use std::time::Duration;

use farwrite_schemas::Lsn;
use metrics::{Unit, counter, gauge, histogram};

use crate::answer::{Reached, WaitError};

const WAITERS: &str = "farwrite_watcher_waiters";
const POLLS: &str = "farwrite_watcher_polls_total";
const HISTORY_POLLS: &str = "farwrite_watcher_history_polls_total";
const REPLAY_LSN: &str = "farwrite_watcher_replay_lsn";
const COMMIT_AGE: &str = "farwrite_watcher_last_replayed_commit_age_seconds";
/// The histogram of waits; public so that a program can set its buckets.
pub const WAIT_SECONDS: &str = "farwrite_watcher_wait_seconds";
const RECONNECTS: &str = "farwrite_watcher_reconnects_total";
const BROADCASTS: &str = "farwrite_watcher_broadcasts_total";
const INTERESTS: &str = "farwrite_watcher_interests_total";

/// Describes every metric to the recorder that is installed; call it once, after installing one.
pub fn describe() {
    use metrics::{describe_counter, describe_gauge, describe_histogram};
    describe_gauge!(WAITERS, Unit::Count, "Callers of this process that wait for a position");
    describe_counter!(POLLS, Unit::Count, "Questions to the replica");
    describe_counter!(
        HISTORY_POLLS,
        Unit::Count,
        "Questions to the replica's history, for a branch that was not known or in doubt"
    );
    describe_gauge!(REPLAY_LSN, Unit::Bytes, "The replayed position last seen");
    describe_gauge!(
        COMMIT_AGE,
        Unit::Seconds,
        "Age of the last replayed commit, read once a second while somebody waits; it grows on an \
         idle primary too"
    );
    describe_histogram!(WAIT_SECONDS, Unit::Seconds, "Time that a caller waited, by result");
    describe_counter!(
        RECONNECTS,
        Unit::Count,
        "Times that the replica answered again after it could not be asked"
    );
    describe_counter!(BROADCASTS, Unit::Count, "Messages of progress told to the region's apps");
    describe_counter!(
        INTERESTS,
        Unit::Count,
        "Interests said by this app or heard by this program"
    );
}

pub(crate) fn waiters_came() {
    gauge!(WAITERS).increment(1.0);
}

pub(crate) fn waiters_left(count: usize) {
    gauge!(WAITERS).decrement(count as f64);
}

pub(crate) fn polled() {
    counter!(POLLS).increment(1);
}

pub(crate) fn asked_history() {
    counter!(HISTORY_POLLS).increment(1);
}

pub(crate) fn replayed(lsn: Lsn) {
    gauge!(REPLAY_LSN).set(lsn.0 as f64);
}

/// `None` on a replica that has replayed no commit since its start.
pub(crate) fn last_replayed_commit_age(seconds: Option<f64>) {
    if let Some(seconds) = seconds {
        gauge!(COMMIT_AGE).set(seconds);
    }
}

pub(crate) fn wait_ended(result: &Result<Reached, WaitError>, waited: Duration) {
    let result = match result {
        Ok(_) => "reached",
        Err(WaitError::TimedOut { .. }) => "timed_out",
        Err(WaitError::ReplicaGone { .. }) => "replica_gone",
        Err(WaitError::Superseded { .. }) => "superseded",
        Err(WaitError::Implausible { .. }) => "implausible",
        Err(WaitError::NotAReplica) => "not_a_replica",
        Err(WaitError::TooManyWaiters { .. }) => "too_many_waiters",
        Err(WaitError::Closed) => "closed",
    };
    histogram!(WAIT_SECONDS, "result" => result).record(waited.as_secs_f64());
}

pub(crate) fn reconnected() {
    counter!(RECONNECTS).increment(1);
}

pub(crate) fn broadcast() {
    counter!(BROADCASTS).increment(1);
}

pub(crate) fn interest() {
    counter!(INTERESTS).increment(1);
}
