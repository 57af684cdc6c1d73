//! Publishing errors are told apart, each with what is known.

use std::time::Duration;

use async_nats::{ConnectOptions, jetstream::stream::Config};
use farwrite_producer::{
    CommandId, InvalidCommand, Known, Limits, OutcomeError, Pending, Producer, PublishError,
    SizeLimit, WaitingFor,
};

use crate::stage::{Stage, raw, until, within};

const SHORT: Duration = Duration::from_millis(700);

async fn fails(producer: &Producer, name: &str, body: &str) -> PublishError {
    let call = producer.call_raw(raw(name, Some("k"), body)).timeout(SHORT);
    let id = call.command_id();
    let error = within(call.publish()).await.unwrap_err();
    assert_eq!(error.id(), id, "{error}");
    error
}

#[tokio::test]
async fn a_stored_command_has_its_place_and_a_second_copy_is_flagged() {
    let stage = Stage::new("stored").await;
    let mut stream = stage.stream().await;
    let producer = stage.producer().await;
    let id = CommandId::now();
    let call = || producer.call_raw(raw("order.place", Some("k"), "{\"a\": 1}")).id(id);
    let first = within(call().publish()).await.unwrap();
    assert_eq!((first.id, first.sequence, first.duplicate), (id, 1, false));
    assert_eq!(first.stream, stage.database.as_str());
    let second = within(call().publish()).await.unwrap();
    assert_eq!((second.sequence, second.duplicate), (1, true));
    let stored = stream.get_raw_message(1).await.unwrap();
    assert_eq!(&stored.payload[..], b"{\"a\": 1}");
    assert_eq!(stored.headers.iter().count(), 2, "id and key: {:?}", stored.headers);
    assert_eq!(stream.info().await.unwrap().state.messages, 1);
    assert_eq!(producer.pending(), Pending::default());
}

#[tokio::test]
async fn a_full_queue_is_retried_until_there_is_room() {
    let stage = Stage::new("full").await;
    let stream = stage.stream_with(Config { max_messages: 1, ..Config::default() }).await;
    let producer = stage.producer().await;
    within(producer.call_raw(raw("a", None, "1")).publish()).await.unwrap();
    let error = fails(&producer, "a", "2").await;
    assert!(matches!(error, PublishError::QueueFull { .. }), "{error:?}");
    assert_eq!(error.known(), Known::NotAccepted);
    let waiting = tokio::spawn(producer.call_raw(raw("a", None, "3")).publish());
    until("the third is pending", || producer.pending().calls == 1).await;
    stream.purge().await.unwrap();
    assert_eq!(within(waiting).await.unwrap().unwrap().sequence, 2);
    assert_eq!(producer.pending(), Pending::default());
}

#[tokio::test]
async fn whose_limit_a_body_exceeds_is_said() {
    let stage = Stage::new("large").await;
    stage.stream_with(Config { max_message_size: 1_000, ..Config::default() }).await;
    let producer = stage.producer().await;
    for (bytes, expected) in [
        (1_100, SizeLimit::Stream),
        (250_000, SizeLimit::Server { bytes: 200_000 }),
        (1_000_001, SizeLimit::Body),
    ] {
        let body = format!("\"{}\"", "x".repeat(bytes - 2));
        let error = fails(&producer, "a", &body).await;
        let PublishError::TooLarge { bytes: told, limit, known, .. } = error else {
            panic!("{bytes}: {error:?}");
        };
        assert_eq!((told, limit, known), (bytes, expected, Known::NotAccepted));
    }
    assert_eq!(producer.pending(), Pending::default());
}

#[tokio::test]
async fn what_is_not_permitted_fails_at_once_and_what_is_needs_no_more_than_the_regions_own() {
    let stage = Stage::new("jailed").await;
    stage.stream().await;
    let producer = stage.builder().nats_url(stage.url_as("jailed")).connect().await.unwrap();
    let accepted = within(producer.call_raw(raw("allowed", None, "1")).publish()).await;
    assert_eq!(accepted.unwrap().sequence, 1);
    let call = producer.call_raw(raw("forbidden", Some("k"), "1"));
    let error = within(call.timeout(Duration::from_secs(600)).publish()).await.unwrap_err();
    let PublishError::NotPermitted { subject, known, .. } = error else { panic!("{error:?}") };
    assert_eq!(subject, format!("farwrite.{}.cmd.jfk.forbidden", stage.database));
    assert_eq!(known, Known::NotAccepted);
    assert_eq!(producer.pending(), Pending::default());
}

#[tokio::test]
async fn a_producer_that_may_not_listen_says_so() {
    let stage = Stage::new("deaf").await;
    stage.stream().await;
    let producer = stage.builder().nats_url(stage.url_as("deaf")).connect().await.unwrap();
    let call = producer.call_raw(raw("a", None, "1")).timeout(Duration::from_secs(600));
    let error = within(call.publish()).await.unwrap_err();
    let PublishError::NotPermitted { subject, .. } = error else { panic!("{error:?}") };
    assert!(subject.starts_with(&format!("farwrite.{}.reply.jfk.", stage.database)), "{subject}");
    let error = within(producer.outcome(CommandId::now())).await.unwrap_err();
    assert!(matches!(error, OutcomeError::NotPermitted { .. }), "{error:?}");
}

#[tokio::test]
async fn a_subject_without_a_stream_is_told_from_a_broker_that_is_away() {
    let stage = Stage::new("nowhere").await;
    let producer = stage.producer().await;
    let error = fails(&producer, "a", "1").await;
    assert!(matches!(error, PublishError::UnknownStream { .. }), "{error:?}");
    assert_eq!(error.known(), Known::NotAccepted);

    // A port that was just free: nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let unconnected = stage
        .builder()
        .nats_url(format!("nats://127.0.0.1:{port}"))
        .nats_options(ConnectOptions::new().retry_on_initial_connect())
        .connect()
        .await
        .unwrap();
    let error = fails(&unconnected, "a", "1").await;
    assert!(matches!(error, PublishError::NoConnection { .. }), "{error:?}");
    assert_eq!(error.known(), Known::NotAccepted);
    let answer = within(unconnected.outcome_within(CommandId::now(), SHORT)).await;
    assert!(matches!(answer, Err(OutcomeError::NoConnection { .. })), "{answer:?}");
    assert_eq!(unconnected.pending(), Pending::default());
}

#[tokio::test]
async fn a_command_that_cannot_be_one_is_not_sent() {
    let stage = Stage::new("invalid").await;
    let producer = stage.producer().await;
    let error = fails(&producer, "a b", "1").await;
    let PublishError::Invalid { cause, .. } = &error else { panic!("{error:?}") };
    assert!(matches!(cause, InvalidCommand::Name(_)), "{cause:?}");
    let zero = raw("a", None, "1").version(0);
    let error = within(producer.call_raw(zero).publish()).await.unwrap_err();
    assert!(matches!(error, PublishError::Invalid { cause: InvalidCommand::Version(0), .. }));
}

#[tokio::test]
async fn calls_and_publishes_in_flight_are_bounded() {
    let stage = Stage::new("bounded").await;
    let mut broker = stage.broker().await;
    let limits = Limits::default().max_in_flight(1).max_pending(2);
    let producer = stage.builder().limits(limits).connect().await.unwrap();
    let first = tokio::spawn(producer.call_raw(raw("a", None, "1")).publish());
    let command = broker.next().await;
    let second = producer.call_raw(raw("a", None, "2")).timeout(SHORT);
    let second = tokio::spawn(second.publish());
    until("both are pending", || producer.pending().calls == 2).await;
    let error = fails(&producer, "a", "3").await;
    assert!(matches!(error, PublishError::TooManyPending { limit: 2, .. }), "{error:?}");
    let error = within(second).await.unwrap().unwrap_err();
    let PublishError::TimedOut { waiting: WaitingFor::Slot, known, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!(known, Known::NotAccepted);
    broker.store(&command, 1).await;
    within(first).await.unwrap().unwrap();
    assert_eq!(producer.pending(), Pending::default());
}
