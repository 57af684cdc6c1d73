//! `outcome` where no worker answers: what the database next door knows, and no more.

use std::time::Duration;

use async_nats::{ConnectOptions, HeaderMap};
use farwrite_producer::{
    CommandId, LastHeard, LedgerRecord, Outcome, OutcomeAnswer, OutcomeError, Pending, Producer,
    ReadsFrom, Reply,
};
use farwrite_schemas::{Fingerprint, OutcomeRequest, headers};

use crate::stage::{LONG, Stage, Worker, raw, within};

/// How long something is asked for that will not be known.
const SHORT: Duration = Duration::from_millis(700);

#[tokio::test]
async fn without_a_worker_an_outcome_is_read_where_the_producer_reads() {
    let stage = Stage::new("known").await;
    let worker = Worker::prepare(&stage).await;
    // Two takeovers: there is a branch of history that is not the newest.
    assert!(worker.begin().await.terminate(LONG).await.unwrap().success());
    let working = worker.begin().await;
    let reader = worker.reader().await;
    let call = reader.call_raw(raw("see", Some("k"), "{\"n\": 1}")).timeout(LONG);
    let committed = within(call.submit()).await.unwrap();
    let id = committed.id;
    let rejected = reader.call_raw(raw("see", Some("k"), "{\"n\": \"x\"}")).timeout(LONG);
    let rejected_id = rejected.command_id();
    let error = within(rejected.write()).await.unwrap_err();
    let parked = reader.call_raw(raw("see", None, "{\"n\": 3}")).delay(LONG);
    let parked = within(parked.publish()).await.unwrap().id;
    // Known there already, as a part of it that waits.
    let answer = within(reader.outcome(parked)).await.unwrap();
    assert!(matches!(answer, OutcomeAnswer::Pending(_)), "{answer:?}");
    assert!(working.terminate(LONG).await.unwrap().success());

    let answer = within(reader.outcome_within(id, LONG)).await.unwrap();
    let OutcomeAnswer::Known(reply) = answer else { panic!("{answer:?}") };
    let Outcome::Applied { output } = &reply.outcome else { panic!("{reply:?}") };
    assert_eq!((reply.id, output.get()), (id, "1"));
    assert_eq!(reply.record.unwrap().sequence, Some(1));
    // Its bookmark is of the same branch, no earlier, and reached here in the end.
    let later = committed.bookmark.later_of(&reply.bookmark).expect("of one branch");
    assert_eq!(later, &reply.bookmark);
    within(reader.wait_within(&reply.bookmark, LONG)).await.unwrap();

    let answer = within(reader.outcome_within(rejected_id, LONG)).await.unwrap();
    let OutcomeAnswer::Known(reply) = answer else { panic!("{answer:?}, {error:?}") };
    assert!(matches!(&reply.outcome, Outcome::Rejected(rejection) if rejection.code == "22P02"));

    // Nothing is said of what the replica does not show.
    let error = within(reader.outcome_within(CommandId::now(), SHORT)).await.unwrap_err();
    let OutcomeError::UnknownHere { parked: None, last_heard, .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!(last_heard, LastHeard::NoWorker);
    let error = within(reader.outcome_within(parked, SHORT)).await.unwrap_err();
    let OutcomeError::UnknownHere { parked: Some(details), .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!(details.reason, "scheduled");

    // The primary knows that it has not ended.
    let primary =
        stage.builder().reads(ReadsFrom::primary(worker.primary_url())).connect().await.unwrap();
    let answer = within(primary.outcome(parked)).await.unwrap();
    assert!(matches!(&answer, OutcomeAnswer::Pending(it) if it.parked.is_some()), "{answer:?}");
    let answer = within(primary.outcome(CommandId::now())).await.unwrap();
    assert!(matches!(&answer, OutcomeAnswer::Pending(it) if it.parked.is_none()), "{answer:?}");
    let answer = within(primary.outcome(id)).await.unwrap();
    let OutcomeAnswer::Known(reply) = answer else { panic!("{answer:?}") };
    assert!(committed.bookmark.later_of(&reply.bookmark).is_some(), "{reply:?}");

    // And whoever reads nothing knows nothing.
    let blind = stage.producer().await;
    let error = within(blind.outcome_within(id, SHORT)).await.unwrap_err();
    assert!(matches!(error, OutcomeError::NoWorker { .. }), "{error:?}");
    for producer in [reader, primary, blind] {
        assert_eq!(producer.pending(), Pending::default());
    }
}

#[tokio::test]
async fn without_nats_an_outcome_is_read_on_the_replica() {
    let stage = Stage::new("no-nats").await;
    let worker = Worker::prepare(&stage).await;
    let _working = worker.begin().await;
    let producer = stage.producer().await;
    let call = producer.call_raw(raw("see", None, "{\"n\": 1}")).timeout(LONG);
    let id = within(call.submit()).await.unwrap().id;
    // A port that nobody listens on.
    let away = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let options = ConnectOptions::new().retry_on_initial_connect();
    let builder = stage.builder().nats_url(format!("nats://{away}")).nats_options(options);
    let reader = worker.reader_of(builder).await;
    let answer = within(reader.outcome_within(id, LONG)).await.unwrap();
    assert!(matches!(&answer, OutcomeAnswer::Known(reply) if reply.id == id), "{answer:?}");
}

#[tokio::test]
async fn who_may_not_read_the_ledger_is_told_so() {
    let stage = Stage::new("not-allowed").await;
    let worker = Worker::prepare(&stage).await;
    let primary = stage.stack.primary();
    let role = format!("stranger_{}", std::process::id());
    primary.execute(worker.database(), &format!("CREATE ROLE {role} LOGIN")).await.unwrap();
    let mut url = worker.primary_url();
    let user = url.find("//").unwrap() + 2..url.find('@').unwrap();
    url.replace_range(user, &role);
    let stranger = stage.builder().reads(ReadsFrom::primary(url)).connect().await.unwrap();
    let error = within(stranger.outcome_within(CommandId::now(), SHORT)).await.unwrap_err();
    let OutcomeError::Reads { cause, .. } = &error else { panic!("{error:?}") };
    assert!(cause.to_string().contains("permission denied"), "{error}");
}

#[tokio::test]
async fn a_cancelled_id_and_a_message_that_was_no_command_are_known_too() {
    let stage = Stage::new("cancelled").await;
    let worker = Worker::prepare(&stage).await;
    let _working = worker.begin().await;
    let (cancelled, broken) = (CommandId::now(), CommandId::now());
    let cancel = format!("SELECT farwrite.cancel('{cancelled}', 'by test')");
    stage.stack.primary().execute(worker.database(), &cancel).await.unwrap();
    let mut map = HeaderMap::new();
    map.insert(headers::COMMAND_ID, broken.to_string());
    let subject = format!("farwrite.{}.cmd.jfk.see", worker.database());
    stage.client.publish_with_headers(subject, map, "{".into()).await.unwrap();

    // Whatever the asker published under a cancelled id, it was that which was cancelled.
    let asked = Fingerprint::of(&"a".parse().unwrap(), 1, None, b"{}");
    let question = OutcomeRequest { id: cancelled, fingerprint: Some(asked) };
    let question = serde_json::to_vec(&question).unwrap().into();
    let answer = within(stage.client.request(stage.subjects.outcome(), question)).await.unwrap();
    let Reply { outcome, record, .. } = Reply::decode(&answer.payload).unwrap();
    assert!(matches!(&outcome, Outcome::Rejected(rejection) if rejection.code == "cancelled"));
    let nowhere = |record: Option<LedgerRecord>| {
        let record = record.unwrap();
        (record.stream, record.sequence, record.published_at_ms) == (None, None, None)
    };
    assert!(nowhere(record));

    let from_worker = stage.producer().await;
    let from_primary = stage
        .builder()
        .nats_url("nats://127.0.0.1:9")
        .nats_options(ConnectOptions::new().retry_on_initial_connect());
    let from_primary =
        from_primary.reads(ReadsFrom::primary(worker.primary_url())).connect().await.unwrap();
    let known = async |producer: &Producer, id| {
        loop {
            // The message is on its way.
            if let OutcomeAnswer::Known(reply) = producer.outcome(id).await.unwrap() {
                return reply;
            }
        }
    };
    for producer in [from_worker, from_primary] {
        let reply = within(known(&producer, cancelled)).await;
        assert!(matches!(&reply.outcome, Outcome::Rejected(it) if it.code == "cancelled"));
        assert!(nowhere(reply.record));
        let reply = within(known(&producer, broken)).await;
        assert!(matches!(&reply.outcome, Outcome::DeadLettered(it) if it.reason == "not_json"));
        assert_eq!(reply.record.unwrap().sequence, Some(1));
    }
}
