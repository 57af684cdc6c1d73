//! Expiry, schedule and context: the producer's wish, and what the worker makes of it.

use std::time::{Duration, SystemTime};

use farwrite_producer::{
    Call, CommandId, InvalidCommand, LastHeard, Outcome, OutcomeAnswer, Pending, PublishError,
    SubmitError,
};
use farwrite_schemas::headers;
use serde_json::{json, value::RawValue};

use crate::stage::{LONG, Stage, Worker, header, raw, within};

#[tokio::test]
async fn what_a_call_wishes_is_in_the_headers_of_every_attempt() {
    let stage = Stage::new("wishes").await;
    let mut broker = stage.broker().await;
    let producer = stage.hasty().connect().await.unwrap();
    let at = |ms| SystemTime::UNIX_EPOCH + Duration::from_millis(ms);
    let call = producer.call_raw(raw("a", Some("k"), "1"));
    let call = call.not_before(at(1)).expires_at(at(4_000_000_000_000));
    let call = tokio::spawn(call.context(json!({ "tenant": "acme" })).publish());
    let silent = broker.next().await;
    let again = broker.next().await;
    for command in [&silent, &again] {
        assert_eq!(header(command, headers::EXPIRES_AT).as_deref(), Some("4000000000000"));
        assert_eq!(header(command, headers::NOT_BEFORE).as_deref(), Some("1"));
        assert_eq!(header(command, headers::CONTEXT).as_deref(), Some("{\"tenant\":\"acme\"}"));
    }
    broker.store(&again, 1).await;
    within(call).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_could_never_be_applied_is_not_sent() {
    let stage = Stage::new("never").await;
    let mut stream = stage.stream().await;
    let producer = stage.producer().await;
    let refused = async |wish: fn(Call<Box<RawValue>>) -> Call<Box<RawValue>>| {
        let call = wish(producer.call_raw(raw("a", Some("k"), "1")));
        let error = within(call.publish()).await.unwrap_err();
        let PublishError::Invalid { cause, .. } = error else { panic!("{error:?}") };
        cause
    };
    let error = refused(|call| call.expires_at(SystemTime::now())).await;
    assert!(matches!(error, InvalidCommand::Expired { .. }), "{error:?}");
    let soon = Duration::from_secs(5);
    let error = refused(|call| call.delay(LONG).expires_in(LONG)).await;
    assert!(matches!(error, InvalidCommand::ExpiresFirst { .. }), "{error:?}");
    let error = refused(|call| call.delay(Duration::MAX)).await;
    assert!(matches!(error, InvalidCommand::Time { .. }), "{error:?}");
    let error = refused(|call| call.context([1])).await;
    assert!(matches!(error, InvalidCommand::Context), "{error:?}");
    assert_eq!(stream.info().await.unwrap().state.messages, 0);
    let last = producer.call_raw(raw("a", Some("k"), "1")).expires_in(Duration::ZERO);
    within(last.expires_in(soon).publish()).await.expect("the last wish counts");
    assert_eq!(producer.pending(), Pending::default());
}

#[tokio::test]
async fn a_command_whose_time_passes_while_nobody_works_expires() {
    let stage = Stage::new("expires").await;
    let worker = Worker::prepare(&stage).await;
    let producer = stage.producer().await;
    let id = CommandId::now();
    let brief = Duration::from_millis(100);
    let call = producer.call_raw(raw("see", Some("k"), "{\"n\": 1}")).id(id).expires_in(brief);
    within(call.publish()).await.unwrap();
    let submitted = producer.call_raw(raw("see", Some("k"), "{\"n\": 2}")).timeout(LONG);
    let submitted = tokio::spawn(submitted.expires_in(brief).submit());
    let lasting = producer.call_raw(raw("see", Some("k"), "{\"n\": 3}")).timeout(LONG);
    let lasting = tokio::spawn(lasting.expires_in(LONG).submit());
    // The clock is what is tested, so that there is nothing else to wait for.
    tokio::time::sleep(brief * 2).await;
    let _working = worker.begin().await;
    let error = within(submitted).await.unwrap().unwrap_err();
    assert!(matches!(error, SubmitError::Expired { .. }), "{error:?}");
    assert_eq!(
        within(lasting).await.unwrap().unwrap().output.get(),
        "1",
        "the first that was seen"
    );
    let answer = within(producer.outcome(id)).await.unwrap();
    let OutcomeAnswer::Known(reply) = answer else { panic!("{answer:?}") };
    assert!(matches!(reply.outcome, Outcome::Expired), "{reply:?}");
    let record = reply.record.unwrap();
    assert_eq!((record.sequence, record.attempts), (Some(1), 1));
    assert_eq!(record.stream, Some(format!("farwrite-{}", worker.database())));
    assert!(record.published_at_ms.unwrap() < record.settled_at_ms);
}

#[tokio::test]
async fn a_delayed_command_is_applied_when_it_is_due_and_overtaken_meanwhile() {
    let stage = Stage::new("delay").await;
    let worker = Worker::prepare(&stage).await;
    let _working = worker.begin().await;
    let producer = stage.producer().await;
    let delay = Duration::from_secs(3);
    let began = SystemTime::now();
    let call = producer.call_raw(raw("see", Some("k"), "{\"n\": 1}")).timeout(LONG).delay(delay);
    let id = call.command_id();
    let delayed = tokio::spawn(call.submit());
    let at_once = producer.call_raw(raw("see", Some("k"), "{\"n\": 2}")).timeout(LONG);
    assert_eq!(within(at_once.submit()).await.unwrap().output.get(), "1");

    // Asked for, it says how it waits.
    let answer = within(producer.outcome(id)).await.unwrap();
    let OutcomeAnswer::Pending(not_ended) = answer else { panic!("{answer:?}") };
    let parked = not_ended.parked.unwrap();
    let due =
        SystemTime::UNIX_EPOCH + Duration::from_millis(parked.due_at_ms.unwrap().unsigned_abs());
    assert_eq!((parked.reason.as_str(), parked.attempts, &parked.error), ("scheduled", 0, &None));
    assert!(due >= began + delay, "{parked:?}");

    assert_eq!(within(delayed).await.unwrap().unwrap().output.get(), "2");
    let mut primary = stage.stack.primary().connect(worker.database()).await.unwrap();
    let seen: Vec<(i32, f64)> =
        sqlx::query_as("SELECT n, extract(epoch FROM at)::float8 FROM seen ORDER BY place")
            .fetch_all(&mut primary)
            .await
            .unwrap();
    let due = due.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!(seen[0].0 == 2 && seen[1].0 == 1 && seen[1].1 >= due, "{seen:?}, due at {due}");
}

#[tokio::test]
async fn a_submit_that_is_not_due_in_time_says_that_it_waits() {
    let stage = Stage::new("not-due").await;
    let worker = Worker::prepare(&stage).await;
    let _working = worker.begin().await;
    let producer = stage.producer().await;
    let call = producer.call_raw(raw("see", None, "{\"n\": 1}")).delay(LONG);
    let error = within(call.timeout(Duration::from_secs(2)).submit()).await.unwrap_err();
    let SubmitError::TimedOut { accepted, last_heard } = error else { panic!("{error:?}") };
    assert_eq!((accepted.sequence, last_heard), (1, LastHeard::Parked));
}

#[tokio::test]
async fn a_context_reaches_the_command_where_the_worker_allows_it() {
    let stage = Stage::new("context").await;
    let worker = Worker::prepare(&stage).await;
    let _working = worker.begin().await;
    let producer = stage.producer().await;
    let submit = |context| {
        let call = producer.call_raw(raw("see", None, "{\"n\": 1}")).timeout(LONG);
        within(call.context(context).submit())
    };
    submit(json!({ "tenant": "a\nb" })).await.unwrap();
    let error = submit(json!({ "role": "admin" })).await.unwrap_err();
    assert!(matches!(error, SubmitError::Rejected { .. }), "{error:?}");
    let mut primary = stage.stack.primary().connect(worker.database()).await.unwrap();
    let seen: Vec<String> =
        sqlx::query_scalar("SELECT context FROM seen").fetch_all(&mut primary).await.unwrap();
    assert_eq!(seen, ["{\"tenant\":\"a\\nb\"}"]);
}
