//! `reconcile` where nothing is lost, where nobody knows, and where it is seen what it sends.

use std::time::Duration;

use async_nats::Client;
use farwrite_producer::{
    CommandId, Journal, JournalLimits, LagError, NotEnded, OutcomeAnswer, Overtaken, Pending,
    Producer, PublishError, ReconcileError, ReconcileOptions, ReconcileReport, WhyUnknown,
};
use farwrite_schemas::OutcomeRequest;
use futures_util::StreamExt;

use crate::stage::{LONG, Stage, Worker, id_of, raw, settle, within};

const SHORT: Duration = Duration::from_millis(700);

/// Without a least age: the tests wait for nothing but what the producer itself waits for.
fn options() -> ReconcileOptions {
    ReconcileOptions::default().min_age(Duration::ZERO).timeout(Duration::from_secs(5))
}

fn journal() -> Journal {
    Journal::in_memory(JournalLimits::default())
}

/// Runs it until a report is as it should be.
async fn until(
    producer: &Producer,
    options: ReconcileOptions,
    is_so: impl Fn(&ReconcileReport) -> bool,
) -> ReconcileReport {
    within(async {
        loop {
            let report = producer.reconcile(options.clone()).await.unwrap();
            if is_so(&report) {
                return report;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
}

/// The last sequence of the stream that a worker has made.
async fn last_sequence(stage: &Stage) -> u64 {
    let subject = stage.subjects.all_commands();
    let context = async_nats::jetstream::new(stage.client.clone());
    let name = context.stream_by_subject(subject).await.unwrap();
    let stream = context.get_stream(name).await.unwrap();
    stream.cached_info().state.last_sequence
}

#[tokio::test]
async fn where_nothing_is_lost_nothing_is_sent_and_what_has_ended_is_forgotten() {
    let stage = Stage::new("kept").await;
    let worker = Worker::prepare(&stage).await;
    let producer = stage.builder().journal(journal()).connect().await.unwrap();
    let publish = async |call: farwrite_producer::Call<_>| {
        within(call.timeout(LONG).publish()).await.unwrap().id
    };
    let see = |body: &str| producer.call_raw(raw("see", Some("k"), body));
    for n in 0..10 {
        publish(see(&format!("{{\"n\": {n}}}"))).await;
    }
    publish(see("{\"n\": \"x\"}")).await;
    publish(see("{\"n\": 11}").expires_in(Duration::from_millis(20))).await;
    let ten_days_ago_ms = CommandId::now().unix_ms().unwrap() - 864_000_000;
    let old = uuid::Builder::from_unix_timestamp_millis(ten_days_ago_ms, &[7; 10]).into_uuid();
    publish(see("{\"n\": 12}").id(CommandId::from_uuid(old))).await;
    let parked = publish(producer.call_raw(raw("see", None, "{\"n\": 13}")).delay(LONG)).await;
    // Longer than what is not known of would take to be judged lost.
    publish(producer.call_raw(raw("nap", Some("slow"), "{\"seconds\": 5}"))).await;
    publish(producer.call_raw(raw("see", Some("slow"), "{\"n\": 14}"))).await;
    assert_eq!(producer.journal().unwrap().commands, 16);

    let _working = worker.begin().await;
    let mut sum = ReconcileReport::default();
    within(async {
        while producer.journal().unwrap().commands > 1 {
            let report = producer.reconcile(options()).await.unwrap();
            assert!(!report.needs_a_look(), "{report:?}");
            assert!(report.duplicates.is_empty() && report.held_back == 0, "{report:?}");
            sum.applied += report.applied;
            sum.rejected += report.rejected;
            sum.expired += report.expired;
            sum.dead_lettered += report.dead_lettered;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let ended = (sum.applied, sum.rejected, sum.expired, sum.dead_lettered);
    assert_eq!(ended, (12, 1, 1, 1));
    let report = until(&producer, options(), |report| report.on_their_way == 0).await;
    assert_eq!((report.parked, report.unknown), (1, 0), "{report:?}");
    assert_eq!(last_sequence(&stage).await, 16, "nothing more came");
    assert!(producer.forget(parked) && !producer.forget(parked));

    // What is awaited is not left to be reconciled.
    within(see("{\"n\": 15}").timeout(LONG).submit()).await.unwrap();
    let published = publish(see("{\"n\": 16}")).await;
    assert_eq!(producer.journal().unwrap().commands, 1);
    within(async {
        while matches!(producer.outcome(published).await.unwrap(), OutcomeAnswer::Pending(_)) {}
    })
    .await;
    assert_eq!(producer.journal().unwrap().commands, 0);
    assert_eq!(producer.pending(), Pending::default());
}

#[tokio::test]
async fn while_the_worker_is_away_the_rest_is_unknown_and_nothing_is_sent() {
    let stage = Stage::new("away").await;
    let worker = Worker::prepare(&stage).await;
    let working = worker.begin().await;
    let producer = worker.reader_of(stage.builder().journal(journal())).await;
    let publish = async |n: usize| {
        let call = producer.call_raw(raw("see", Some("k"), &format!("{{\"n\": {n}}}")));
        within(call.timeout(LONG).publish()).await.unwrap().id
    };
    let known = publish(0).await;
    // By another producer's question: this one's journal does not hear of it.
    let other = stage.producer().await;
    within(async {
        while matches!(other.outcome(known).await.unwrap(), OutcomeAnswer::Pending(_)) {}
    })
    .await;
    assert!(working.terminate(LONG).await.unwrap().success());
    for n in 1..=5 {
        publish(n).await;
    }
    // The replica may be a moment late to know the first one.
    let options = options().timeout(SHORT);
    let report = until(&producer, options.clone(), |report| report.applied == 1).await;
    assert_eq!(report.unknown, 5, "{report:?}");
    let mut began = tokio::time::Instant::now();
    // For longer than what is lost would stay unsent with a worker.
    while began.elapsed() < Duration::from_secs(5) {
        let report = within(producer.reconcile(options.clone())).await.unwrap();
        assert_eq!((report.unknown, report.needs_a_look()), (5, false), "{report:?}");
        assert!(
            matches!(report.why_unknown, Some(WhyUnknown::NoLag(LagError::NoWorker))),
            "{report:?}"
        );
    }
    assert_eq!(last_sequence(&stage).await, 6);
    // Back again, it knows.
    let _working = worker.begin().await;
    began = tokio::time::Instant::now();
    let mut applied = 0;
    while applied < 5 && began.elapsed() < LONG {
        let report = within(producer.reconcile(options.clone())).await.unwrap();
        assert!(report.sent_again.is_empty(), "{report:?}");
        applied += report.applied;
    }
    assert_eq!((applied, producer.journal().unwrap().commands), (5, 0));
}

#[tokio::test]
async fn without_a_journal_or_with_options_that_make_no_sense_it_says_so() {
    let stage = Stage::new("no-journal").await;
    let producer = stage.producer().await;
    let error = producer.reconcile(options()).await.unwrap_err();
    assert!(matches!(error, ReconcileError::NoJournal), "{error}");
    assert_eq!((producer.journal(), producer.forget(CommandId::now())), (None, false));
    let producer = stage.builder().journal(journal()).connect().await.unwrap();
    let wrong = options().concurrency(0);
    let error = producer.reconcile(wrong).await.unwrap_err();
    assert_eq!(error.to_string(), "the limit reconcile concurrency must be greater than zero");
}

/// A worker that is up to date and knows of nothing.
pub(crate) async fn oblivious_worker(stage: &Stage) -> tokio::task::JoinHandle<()> {
    let client: Client = stage.client.clone();
    let mut lags = client.subscribe(stage.subjects.lag()).await.unwrap();
    let mut outcomes = client.subscribe(stage.subjects.outcome()).await.unwrap();
    settle(&client).await;
    tokio::spawn(async move {
        loop {
            let (inbox, answer) = tokio::select! {
                Some(question) = lags.next() => {
                    (question.reply, b"{\"commands\":0,\"seconds\":0.0}".to_vec())
                }
                Some(question) = outcomes.next() => {
                    let OutcomeRequest { id, .. } =
                        serde_json::from_slice(&question.payload).unwrap();
                    let answer = OutcomeAnswer::Pending(NotEnded::unknown(id)).encode();
                    (question.reply, answer.unwrap())
                }
            };
            client.publish(inbox.unwrap(), answer.into()).await.unwrap();
        }
    })
}

#[tokio::test]
async fn a_publish_of_unknown_result_is_sent_again_behind_what_is_lost_before_it() {
    let stage = Stage::new("unknown").await;
    let mut broker = stage.broker().await;
    let answering = oblivious_worker(&stage).await;
    let producer = stage.hasty().journal(journal()).connect().await.unwrap();
    let call = |body: &str| producer.call_raw(raw("a", Some("k"), body)).timeout(SHORT);
    let first = tokio::spawn(call("1").context(serde_json::json!({"tenant": "acme"})).publish());
    let sent = broker.next().await;
    broker.store(&sent, 1).await;
    let first = within(first).await.unwrap().unwrap().id;
    let second = within(call("2").publish()).await.unwrap_err();
    assert!(matches!(second, PublishError::TimedOut { .. }), "{second:?}");
    let second = second.id();
    assert_eq!(producer.pending().blocked_keys, 1);
    let third = tokio::spawn(call("3").timeout(LONG).publish());

    // Held up by the second, the third has the key; what is reconciled goes when it has ended.
    let mut attempts = Vec::new();
    let third = loop {
        let command = broker.next().await;
        let id = id_of(&command);
        attempts.push(id);
        broker.store(&command, attempts.len() as u64).await;
        if id != first && id != second {
            break within(third).await.unwrap().unwrap().id;
        }
    };
    assert!(attempts.contains(&second), "the unresolved one first: {attempts:?}");

    // All of it is lost. In their order, with all that they had.
    let mut reconciling = tokio::spawn({
        let producer = producer.clone();
        async move { until(&producer, options(), |report| report.sent_again.len() == 3).await }
    });
    let mut again = Vec::new();
    let report = loop {
        tokio::select! {
            report = &mut reconciling => break report.unwrap(),
            command = broker.next() => {
                let id = id_of(&command);
                if id == first {
                    assert_eq!((&command.headers, &command.payload), (&sent.headers, &sent.payload));
                }
                again.push(id);
                broker.store(&command, 1).await;
            }
        }
    };
    // The first is lost before the others, by its age, and again with them.
    again.dedup();
    let all = [first, second, third];
    assert!(again.ends_with(&all), "{again:?} and not {all:?}");
    assert_eq!((&report.sent_again[..], report.overtaken.len()), (&all[..], 0), "all were lost");
    assert_eq!(producer.pending(), Pending::default());
    answering.abort();
}

#[tokio::test]
async fn what_the_broker_says_it_holds_holds_back_the_rest_and_the_overtaken_can_be_left() {
    let stage = Stage::new("held").await;
    let mut broker = stage.broker().await;
    let answering = oblivious_worker(&stage).await;
    let producer = stage.builder().journal(journal()).connect().await.unwrap();
    let call = |body: &str| producer.call_raw(raw("a", Some("k"), body));
    let mut ids = Vec::new();
    for (sequence, body) in [(1, "1"), (2, "2")] {
        let publishing = tokio::spawn(call(body).publish());
        let command = broker.next().await;
        broker.store(&command, sequence).await;
        ids.push(within(publishing).await.unwrap().unwrap().id);
    }
    let reconciling = tokio::spawn({
        let producer = producer.clone();
        async move { until(&producer, options(), |report| !report.duplicates.is_empty()).await }
    });
    let command = broker.next().await;
    broker.store_duplicate(&command, 1).await;
    let report = within(reconciling).await.unwrap();
    assert_eq!((&report.duplicates[..], report.held_back), (&ids[..1], 1), "{report:?}");
    assert!(report.sent_again.is_empty() && report.unsent.is_empty(), "{report:?}");

    // A third one is applied: the two before it, which are lost, would undo it.
    let submitting = tokio::spawn(call("3").submit());
    let command = broker.next().await;
    broker.store(&command, 3).await;
    stage.reply(&command, &stage.applied(id_of(&command), "7", farwrite_schemas::Lsn(9))).await;
    within(submitting).await.unwrap().unwrap();
    let leaving = options().overtaken(Overtaken::Leave);
    let report = until(&producer, leaving, |report| report.left == 2).await;
    assert_eq!(report.overtaken, ids);
    assert!(report.sent_again.is_empty() && report.needs_a_look(), "{report:?}");
    assert_eq!(producer.journal().unwrap().commands, 2);
    for id in ids {
        assert!(producer.forget(id));
    }
    assert_eq!(producer.pending(), Pending::default());
    answering.abort();
}
