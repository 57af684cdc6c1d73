//! What a producer counts. Names and units are written down here and nowhere else.

use std::{sync::Once, time::Duration};

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

const PUBLISHES: &str = "farwrite_producer_publishes_total";
const PUBLISH_SECONDS: &str = "farwrite_producer_publish_seconds";
const ABANDONED: &str = "farwrite_producer_abandoned_publishes_total";
const RETRIES: &str = "farwrite_producer_publish_retries_total";
const BATCHES: &str = "farwrite_producer_batches_total";
const BATCH_COMMANDS: &str = "farwrite_producer_batch_commands_total";
const DUPLICATES: &str = "farwrite_producer_duplicates_total";
const SUBMITS: &str = "farwrite_producer_submits_total";
const SUBMIT_SECONDS: &str = "farwrite_producer_submit_seconds";
const VISIBLE_SECONDS: &str = "farwrite_producer_visible_wait_seconds";
const BLOCKED_KEYS: &str = "farwrite_producer_blocked_keys";
const LATE_REPLIES: &str = "farwrite_producer_late_replies_total";
const UNREADABLE_REPLIES: &str = "farwrite_producer_unreadable_replies_total";
const OUTCOME_QUESTIONS: &str = "farwrite_producer_outcome_questions_total";
const OUTCOMES_READ: &str = "farwrite_producer_outcomes_read_total";
const REFUSED_READS: &str = "farwrite_producer_read_connections_refused_total";

const READS_ROLE: &str = "farwrite_producer_reads_misdirected";
const LATE_REQUESTS: &str = "farwrite_producer_late_requests_total";
const REGIONS_ASKED: &str = "farwrite_producer_regions_asked_total";
const READ_AT: &str = "farwrite_producer_read_at_total";
const JOURNAL_COMMANDS: &str = "farwrite_producer_journal_commands";
const JOURNAL_BYTES: &str = "farwrite_producer_journal_bytes";
const JOURNAL_UNREADABLE: &str = "farwrite_producer_journal_unreadable_bytes_total";
const JOURNAL_REWRITES: &str = "farwrite_producer_journal_rewrites_total";
const JOURNAL_FAILURES: &str = "farwrite_producer_journal_failures_total";
const RECONCILED: &str = "farwrite_producer_reconciled_total";

/// Gives every metric its unit and its sentence, once a process.
pub(crate) fn describe() {
    static DESCRIBED: Once = Once::new();
    DESCRIBED.call_once(|| {
        describe_counter!(PUBLISHES, "Publish calls that ended, by result.");
        describe_histogram!(
            PUBLISH_SECONDS,
            Unit::Seconds,
            "From the call to the acknowledgement."
        );
        describe_counter!(
            ABANDONED,
            "Publishes with a key whose call was dropped while they were out, by how they ended."
        );
        describe_counter!(RETRIES, "Attempts that failed and were repeated, by reason.");
        describe_counter!(BATCHES, "Batches that commands were gathered into, by result.");
        describe_counter!(BATCH_COMMANDS, "Commands in those batches, by the batch's result.");
        describe_counter!(DUPLICATES, "Acknowledgements that said the id was stored already.");
        describe_counter!(SUBMITS, "Submit calls that ended, by result.");
        describe_histogram!(SUBMIT_SECONDS, Unit::Seconds, "From the call to the outcome.");
        describe_histogram!(VISIBLE_SECONDS, Unit::Seconds, "From the outcome to its visibility.");
        describe_gauge!(BLOCKED_KEYS, "Keys that wait for an unresolved publish.");
        describe_counter!(LATE_REPLIES, "Messages to the inbox that nobody waited for any more.");
        describe_counter!(UNREADABLE_REPLIES, "Messages to the inbox that could not be read.");
        describe_counter!(OUTCOME_QUESTIONS, "Questions to the outcome service, by result.");
        describe_counter!(
            OUTCOMES_READ,
            "Outcomes and outputs looked for in the database that is read, by result."
        );
        describe_gauge!(
            READS_ROLE,
            "1 while the server that is read is not what it was said to be, by what was meant."
        );
        describe_counter!(
            LATE_REQUESTS,
            "Requests whose bookmark was not visible here in time, by what was done."
        );
        describe_counter!(
            REGIONS_ASKED,
            "Other regions that were waited for, by whether they showed the bookmark in time."
        );
        describe_counter!(READ_AT, "Reads at a bookmark, by the server that serves them.");
        describe_gauge!(JOURNAL_COMMANDS, "Commands in the journal: sent, outcome not known.");
        describe_gauge!(JOURNAL_BYTES, Unit::Bytes, "What they take of the journal's limit.");
        describe_counter!(
            JOURNAL_UNREADABLE,
            Unit::Bytes,
            "Bytes that could not be read when a journal was opened, by what they were."
        );
        describe_counter!(JOURNAL_REWRITES, "Times that a journal's file was written anew.");
        describe_counter!(JOURNAL_FAILURES, "Times that a journal's file could not be written.");
        describe_counter!(RECONCILED, "Commands that were reconciled, by what was found or done.");
        describe_counter!(REFUSED_READS, "Connections to a replica that was behind its own past.");
    });
}

/// A publish ended well.
pub(crate) fn published(after: Duration, is_duplicate: bool) {
    counter!(PUBLISHES, "result" => "accepted").increment(1);
    histogram!(PUBLISH_SECONDS).record(after);
    if is_duplicate {
        counter!(DUPLICATES).increment(1);
    }
}

/// A publish ended with an error.
pub(crate) fn publish_failed(result: &'static str) {
    counter!(PUBLISHES, "result" => result).increment(1);
}

/// A publish ended whose call was dropped while it was out.
pub(crate) fn abandoned(result: &'static str) {
    counter!(ABANDONED, "result" => result).increment(1);
}

/// An attempt failed and will be repeated.
pub(crate) fn retried(reason: &'static str) {
    counter!(RETRIES, "reason" => reason).increment(1);
}

/// A batch of so many commands ended.
pub(crate) fn batch_ended(result: &'static str, commands: usize) {
    counter!(BATCHES, "result" => result).increment(1);
    counter!(BATCH_COMMANDS, "result" => result).increment(commands as u64);
}

/// A submit ended.
pub(crate) fn submitted(after: Duration, result: &'static str) {
    counter!(SUBMITS, "result" => result).increment(1);
    histogram!(SUBMIT_SECONDS).record(after);
}

/// A wait for visibility ended well.
pub(crate) fn visible(after: Duration) {
    histogram!(VISIBLE_SECONDS).record(after);
}

/// An unresolved publish blocks one more key.
pub(crate) fn key_blocked() {
    gauge!(BLOCKED_KEYS).increment(1.0);
}

/// So many keys are blocked no longer, or their producer is gone.
pub(crate) fn keys_freed(count: usize) {
    if count > 0 {
        gauge!(BLOCKED_KEYS).decrement(count as f64);
    }
}

/// Something came that nobody waited for any more.
pub(crate) fn late_reply() {
    counter!(LATE_REPLIES).increment(1);
}

/// Something came that could not be read.
pub(crate) fn unreadable_reply() {
    counter!(UNREADABLE_REPLIES).increment(1);
}

/// A question for an outcome was answered, or not.
pub(crate) fn asked(result: &'static str) {
    counter!(OUTCOME_QUESTIONS, "result" => result).increment(1);
}

/// An outcome or an output was looked for in the database that is read.
pub(crate) fn outcome_read(result: &'static str) {
    counter!(OUTCOMES_READ, "result" => result).increment(1);
}

/// What the server that is read was meant to be, and whether it is something else.
pub(crate) fn reads_role(meant: &'static str, is_other: bool) {
    gauge!(READS_ROLE, "meant" => meant).set(f64::from(u8::from(is_other)));
}

/// So many other regions showed a bookmark in time, and so many did not.
pub(crate) fn asked_regions(visible: usize, missing: usize) {
    counter!(REGIONS_ASKED, "result" => "visible").increment(visible as u64);
    counter!(REGIONS_ASKED, "result" => "missing").increment(missing as u64);
}

/// A request's bookmark was not visible here in time.
#[cfg(feature = "web")]
pub(crate) fn request_late(done: &'static str) {
    counter!(LATE_REQUESTS, "done" => done).increment(1);
}

/// A pool was handed out for a read at a bookmark.
pub(crate) fn read_at(from: &'static str) {
    counter!(READ_AT, "from" => from).increment(1);
}

/// A connection to a replica was refused because it shows less than was promised.
pub(crate) fn read_refused() {
    counter!(REFUSED_READS).increment(1);
}

/// A journal changed its size, in commands and bytes.
pub(crate) fn journal_changed(before: (usize, usize), after: (usize, usize)) {
    for (name, before, after) in
        [(JOURNAL_COMMANDS, before.0, after.0), (JOURNAL_BYTES, before.1, after.1)]
    {
        if after != before {
            gauge!(name).increment(after as f64 - before as f64);
        }
    }
}

/// A journal was opened that was not whole.
pub(crate) fn journal_opened(torn_bytes: u64, damaged_bytes: u64) {
    for (what, bytes) in [("torn", torn_bytes), ("damaged", damaged_bytes)] {
        if bytes > 0 {
            counter!(JOURNAL_UNREADABLE, "what" => what).increment(bytes);
        }
    }
}

/// A journal's file was written anew.
pub(crate) fn journal_rewritten() {
    counter!(JOURNAL_REWRITES).increment(1);
}

/// A journal's file could not be written.
pub(crate) fn journal_failed() {
    counter!(JOURNAL_FAILURES).increment(1);
}

/// So many commands were found so, or done so with.
pub(crate) fn reconciled(result: &'static str, count: usize) {
    if count > 0 {
        counter!(RECONCILED, "result" => result).increment(count as u64);
    }
}
