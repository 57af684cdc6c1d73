//! The worker's metrics: every name, unit and label, once. `docs/metrics.md` has the same table.

use std::time::Duration;

use metrics::{
    Gauge, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

const COMMANDS: &str = "farwrite_worker_commands_total";
const REPEATED: &str = "farwrite_worker_duplicates_suppressed_total";
const BATCH_COMMANDS: &str = "farwrite_worker_batch_commands";
const APPLY_SECONDS: &str = "farwrite_worker_apply_seconds";
const SETTLE_SECONDS: &str = "farwrite_worker_settle_seconds";
const BACKLOG: &str = "farwrite_worker_backlog_commands";
const LANE_QUEUE: &str = "farwrite_worker_lane_queue_commands";
const RETRIED_BATCHES: &str = "farwrite_worker_batches_retried_total";
const REPLIES: &str = "farwrite_worker_replies_total";
const OUTCOMES_ASKED: &str = "farwrite_worker_outcomes_asked_total";
const HEARTBEATS: &str = "farwrite_worker_heartbeats_total";
const TRIMMED: &str = "farwrite_worker_trimmed_messages_total";
const TRIM_FLOOR: &str = "farwrite_worker_trim_floor_sequence";
const STANDBYS_MISSING: &str = "farwrite_worker_required_standbys_missing";
const STANDING_BY: &str = "farwrite_worker_standing_by";
const STEPPED_BACK: &str = "farwrite_worker_stepped_back_total";
const TAKEOVERS: &str = "farwrite_worker_takeovers_total";
const READER_RESTARTS: &str = "farwrite_worker_reader_restarts_total";
const PARKED: &str = "farwrite_worker_parked_commands";
const PARKED_FOR: &str = "farwrite_worker_parked_total";
const LANE_FULL: &str = "farwrite_worker_lane_full";
const LANE_SKIPPED: &str = "farwrite_worker_lane_skipped";
const HINTS_MADE_AGAIN: &str = "farwrite_worker_hints_made_again_total";
const STREAM_BYTES: &str = "farwrite_worker_stream_bytes";
const STREAM_MAX_BYTES: &str = "farwrite_worker_stream_max_bytes";
const HELD_BYTES: &str = "farwrite_worker_held_bytes";
const WAITING: &str = "farwrite_worker_waiting_for_primary";

/// Says what each metric is.
pub fn describe() {
    describe_counter!(COMMANDS, Unit::Count, "Commands settled, by outcome");
    describe_counter!(
        REPEATED,
        Unit::Count,
        "Commands whose id the ledger knew: not applied again"
    );
    describe_histogram!(BATCH_COMMANDS, Unit::Count, "Commands in a committed batch");
    describe_histogram!(
        APPLY_SECONDS,
        Unit::Seconds,
        "From a batch's first statement to its commit"
    );
    describe_histogram!(SETTLE_SECONDS, Unit::Seconds, "From a batch's commit to its last reply");
    describe_gauge!(BACKLOG, Unit::Count, "Commands in the stream that are not read yet");
    describe_gauge!(LANE_QUEUE, Unit::Count, "Commands read that wait for their lane, by lane");
    describe_counter!(
        RETRIED_BATCHES,
        Unit::Count,
        "Batches that failed and were run again in chunks"
    );
    describe_counter!(
        REPLIES,
        Unit::Count,
        "Replies, by result: sent, dropped (NATS took no more), refused (inbox of another origin)"
    );
    describe_counter!(OUTCOMES_ASKED, Unit::Count, "Questions for an outcome, by answer");
    describe_counter!(HEARTBEATS, Unit::Count, "Heartbeat commits");
    describe_counter!(TAKEOVERS, Unit::Count, "Takeovers of this process");
    describe_counter!(TRIMMED, Unit::Count, "Messages that were trimmed from the stream");
    describe_gauge!(
        TRIM_FLOOR,
        Unit::Count,
        "The sequence below which the stream was trimmed by this process"
    );
    describe_gauge!(
        STANDBYS_MISSING,
        Unit::Count,
        "Required standbys of which nothing is known: nothing is trimmed meanwhile"
    );
    describe_gauge!(
        STANDING_BY,
        Unit::Count,
        "1 while another worker owns the database and this one stands by"
    );
    describe_counter!(
        STEPPED_BACK,
        Unit::Count,
        "Times that this process found that another worker had taken over from it"
    );
    describe_counter!(READER_RESTARTS, Unit::Count, "Times that reading the stream began anew");
    describe_gauge!(PARKED, Unit::Count, "Commands that are parked, by lane");
    describe_counter!(PARKED_FOR, Unit::Count, "Times that a command was parked, by reason");
    describe_gauge!(
        LANE_FULL,
        Unit::Count,
        "1 while a lane stands still because as many commands are parked as may be, by lane"
    );
    describe_gauge!(
        LANE_SKIPPED,
        Unit::Count,
        "1 while a lane that stayed full reads for itself, by lane"
    );
    describe_counter!(
        HINTS_MADE_AGAIN,
        Unit::Count,
        "Times that the stream of hints, or the record in it of who serves, was gone and was made again"
    );
    describe_gauge!(STREAM_BYTES, Unit::Bytes, "Bytes of the stream");
    describe_gauge!(
        STREAM_MAX_BYTES,
        Unit::Bytes,
        "Bytes at which the stream refuses every write; 0 for no limit"
    );
    describe_gauge!(
        HELD_BYTES,
        Unit::Bytes,
        "Commands and answers in memory, by holder: lanes, answers, unconfirmed"
    );
    describe_gauge!(WAITING, Unit::Count, "1 while the worker waits for the primary or the stream");
}

/// How a reply ended.
#[derive(Clone, Copy)]
pub(crate) enum ReplyResult {
    Sent,
    Dropped,
    Refused,
}

pub(crate) fn settled(outcome: &'static str, commands: u64) {
    counter!(COMMANDS, "outcome" => outcome).increment(commands);
}

pub(crate) fn repeated(commands: u64) {
    counter!(REPEATED).increment(commands);
}

pub(crate) fn applied(commands: usize, took: Duration) {
    histogram!(BATCH_COMMANDS).record(commands as f64);
    histogram!(APPLY_SECONDS).record(took.as_secs_f64());
}

pub(crate) fn settled_in(took: Duration) {
    histogram!(SETTLE_SECONDS).record(took.as_secs_f64());
}

/// Commands that are not read yet. To be kept: finding it for each command would cost more than
/// setting it.
pub(crate) fn backlog() -> Gauge {
    gauge!(BACKLOG)
}

pub(crate) fn lane_queue(lane: u32, commands: usize) {
    gauge!(LANE_QUEUE, "lane" => lane.to_string()).set(commands as f64);
}

pub(crate) fn parked(lane: u32, commands: u64) {
    gauge!(PARKED, "lane" => lane.to_string()).set(commands as f64);
}

pub(crate) fn parked_for(reason: &'static str) {
    counter!(PARKED_FOR, "reason" => reason).increment(1);
}

pub(crate) fn lane_skipped(lane: usize, skipped: bool) {
    gauge!(LANE_SKIPPED, "lane" => lane.to_string()).set(if skipped { 1.0 } else { 0.0 });
}

pub(crate) fn lane_full(lane: u32, full: bool) {
    gauge!(LANE_FULL, "lane" => lane.to_string()).set(if full { 1.0 } else { 0.0 });
}

pub(crate) fn batch_retried() {
    counter!(RETRIED_BATCHES).increment(1);
}

pub(crate) fn reply(result: ReplyResult) {
    let result = match result {
        ReplyResult::Sent => "sent",
        ReplyResult::Dropped => "dropped",
        ReplyResult::Refused => "refused",
    };
    counter!(REPLIES, "result" => result).increment(1);
}

pub(crate) fn outcome_asked(answer: &'static str) {
    counter!(OUTCOMES_ASKED, "answer" => answer).increment(1);
}

pub(crate) fn heartbeat() {
    counter!(HEARTBEATS).increment(1);
}

pub(crate) fn took_over() {
    counter!(TAKEOVERS).increment(1);
}

pub(crate) fn trimmed(floor: u64, messages: u64) {
    gauge!(TRIM_FLOOR).set(floor as f64);
    counter!(TRIMMED).increment(messages);
}

pub(crate) fn standbys_missing(standbys: usize) {
    gauge!(STANDBYS_MISSING).set(standbys as f64);
}

pub(crate) fn standing_by(standing_by: bool) {
    gauge!(STANDING_BY).set(if standing_by { 1.0 } else { 0.0 });
}

pub(crate) fn stepped_back() {
    counter!(STEPPED_BACK).increment(1);
}

pub(crate) fn reader_restarted() {
    counter!(READER_RESTARTS).increment(1);
}

pub(crate) fn hints_made_again() {
    counter!(HINTS_MADE_AGAIN).increment(1);
}

pub(crate) fn stream_bytes(bytes: u64, max_bytes: i64) {
    gauge!(STREAM_BYTES).set(bytes as f64);
    gauge!(STREAM_MAX_BYTES).set(max_bytes.max(0) as f64);
}

pub(crate) fn held_bytes(holder: &'static str, bytes: usize) {
    gauge!(HELD_BYTES, "holder" => holder).set(bytes as f64);
}

pub(crate) fn waiting(waiting: bool) {
    gauge!(WAITING).set(if waiting { 1.0 } else { 0.0 });
}
