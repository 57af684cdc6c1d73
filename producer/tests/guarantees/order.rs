//! Order per key: one unacknowledged publish, retries in place, and a block until a doubt is
//! resolved.

use std::{collections::HashMap, time::Duration};

use farwrite_producer::{Known, Limits, Pending, Producer, PublishError, SubmitError};
use farwrite_schemas::headers;
use futures_util::future::join_all;

use crate::stage::{LONG, Stage, id_of, raw, until, within};

const SHORT: Duration = Duration::from_millis(700);

pub(crate) fn body(command: &async_nats::Message) -> String {
    String::from_utf8(command.payload.to_vec()).unwrap()
}

#[tokio::test]
async fn a_key_has_one_publish_out_and_goes_in_the_order_of_the_calls() {
    let stage = Stage::new("order").await;
    let mut broker = stage.broker().await;
    let producer = stage.hasty().connect().await.unwrap();
    let publish = |key, body| producer.call_raw(raw("a", Some(key), body)).publish();
    // Called in one order, polled in the other.
    let (first, second, third) = (publish("k", "1"), publish("k", "2"), publish("k", "3"));
    let calls = [third, second, first, publish("other", "4")].map(tokio::spawn);
    // A silent attempt is repeated in place, with the same id; another key overtakes, 2 does not.
    let mut heard: HashMap<String, Vec<_>> = HashMap::new();
    while heard.get("1").is_none_or(|copies| copies.len() < 2) || !heard.contains_key("4") {
        let command = broker.next().await;
        heard.entry(body(&command)).or_default().push(id_of(&command));
    }
    assert_eq!(heard.len(), 2, "{heard:?}");
    assert!(heard["1"].iter().all(|id| *id == heard["1"][0]), "{heard:?}");
    let mut all = join_all(calls);
    let mut order = Vec::new();
    let results = loop {
        tokio::select! {
            results = &mut all => break results,
            command = broker.next() => {
                broker.store(&command, 1).await;
                if order.last() != Some(&body(&command)) && body(&command) != "4" {
                    order.push(body(&command));
                }
            }
        }
    };
    assert_eq!(order, ["1", "2", "3"]);
    for result in results {
        result.unwrap().unwrap();
    }
    assert_eq!(producer.pending(), Pending::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_per_key_is_kept_while_the_link_is_cut_dropped_and_healed() {
    const KEYS: usize = 20;
    const PER_KEY: usize = 30;
    let stage = Stage::new("cut").await;
    let stream = stage.stream().await;
    let link = stage.stack.nats_link(crate::stage::REGION).unwrap();
    let producer = stage.hasty().nats_url(format!("nats://{}", link.addr())).connect();
    let producer = within(producer).await.unwrap();
    let publish = |number: usize| {
        let key = format!("k{}", number % KEYS);
        let command = raw("a", Some(&key), &number.to_string());
        tokio::spawn(producer.call_raw(command).timeout(LONG).publish())
    };
    let mut calls = Vec::new();
    for round in 0..PER_KEY {
        calls.extend((0..KEYS).map(|key| publish(round * KEYS + key)));
        match round % 10 {
            3 => {
                link.cut();
                // Longer than an attempt waits: attempts are repeated behind the cut.
                tokio::time::sleep(Duration::from_millis(500)).await;
                link.heal();
            }
            7 => link.drop_connections(),
            _ => tokio::task::yield_now().await,
        }
    }
    for call in join_all(calls).await {
        call.unwrap().unwrap();
    }
    let mut stored: HashMap<String, Vec<usize>> = HashMap::new();
    let last = stream.get_info().await.unwrap().state.last_sequence;
    for sequence in 1..=last {
        let message = stream.get_raw_message(sequence).await.unwrap();
        let key = message.headers.get(headers::KEY).unwrap().as_str().to_owned();
        let number = std::str::from_utf8(&message.payload).unwrap().parse().unwrap();
        stored.entry(key).or_default().push(number);
    }
    assert_eq!(stored.len(), KEYS);
    for (key, numbers) in stored {
        assert_eq!(numbers.len(), PER_KEY, "{key}: one effect each");
        assert!(numbers.is_sorted(), "{key}: {numbers:?}");
    }
    assert_eq!(producer.pending(), Pending::default());
}

/// Leaves `k` blocked by a publish of unknown result, and returns its error.
async fn block(producer: &Producer, body: &str) -> PublishError {
    let call = producer.call_raw(raw("a", Some("k"), body)).timeout(SHORT);
    within(call.publish()).await.unwrap_err()
}

/// What is held: so many calls, replies that are awaited, and blocked keys.
pub(crate) fn pending(calls: usize, replies: usize, blocked_keys: usize) -> Pending {
    let mut pending = Pending::default();
    (pending.calls, pending.replies) = (calls, replies);
    (pending.keys, pending.blocked_keys) = (blocked_keys, blocked_keys);
    pending
}

#[tokio::test]
async fn a_key_in_doubt_is_blocked_until_its_id_is_resolved_and_then_goes_on_in_order() {
    let stage = Stage::new("blocked").await;
    let mut broker = stage.broker().await;
    let producer = stage.hasty().connect().await.unwrap();
    let error = block(&producer, "1").await;
    assert!(matches!(error, PublishError::TimedOut { known: Known::MaybeAccepted, .. }));
    let expected = pending(0, 0, 1);
    assert_eq!(producer.pending(), expected);
    let blocking = error.id();

    let error = block(&producer, "2").await;
    let PublishError::KeyBlocked { unresolved, .. } = error else { panic!("{error:?}") };
    assert_eq!(unresolved, blocking);
    assert_eq!(error.known(), Known::NotAccepted);
    assert_eq!(producer.pending(), expected);

    let call = tokio::spawn(producer.call_raw(raw("a", Some("k"), "3")).publish());
    let mut sent = Vec::new();
    loop {
        let command = broker.next().await;
        broker.store(&command, 1).await;
        sent.push(body(&command));
        if body(&command) == "3" {
            break;
        }
        assert_eq!(id_of(&command), blocking, "nothing but the unresolved one goes before");
    }
    within(call).await.unwrap().unwrap();
    assert!(!sent.contains(&"2".to_owned()), "what was blocked was not sent: {sent:?}");
    assert_eq!(producer.pending(), Pending::default());
}

#[tokio::test]
async fn the_same_id_published_again_resolves_its_key() {
    let stage = Stage::new("again").await;
    let producer = stage.hasty().connect().await.unwrap();
    let broker = stage.broker().await;
    let id = block(&producer, "1").await.id();
    drop(broker);
    stage.stream().await;
    let again = producer.call_raw(raw("a", Some("k"), "1")).id(id);
    assert_eq!(within(again.publish()).await.unwrap().id, id);
    assert_eq!(producer.pending(), Pending::default());
}

#[tokio::test]
async fn blocked_keys_are_bounded() {
    let stage = Stage::new("too-many").await;
    let _broker = stage.broker().await;
    let limits = Limits::default().max_blocked_keys(1).ack_timeout(Duration::from_millis(100));
    let producer = stage.builder().limits(limits).connect().await.unwrap();
    block(&producer, "1").await;
    let error = within(producer.call_raw(raw("a", Some("other"), "2")).publish()).await;
    assert!(matches!(error, Err(PublishError::TooManyBlockedKeys { blocked: 1, .. })));
    let unkeyed = producer.call_raw(raw("a", None, "3")).timeout(SHORT).publish();
    assert!(matches!(within(unkeyed).await, Err(PublishError::TimedOut { .. })));
}

#[tokio::test]
async fn blocked_keys_that_nobody_calls_again_are_freed_when_the_broker_is_back() {
    let stage = Stage::new("freed").await;
    let mut broker = stage.broker().await;
    let limits = Limits::default().max_blocked_keys(2).ack_timeout(Duration::from_millis(100));
    let producer = stage.builder().limits(limits).connect().await.unwrap();
    let publish = |key, body| producer.call_raw(raw("a", Some(key), body)).timeout(SHORT).publish();
    for key in ["k", "l"] {
        assert_eq!(within(publish(key, "1")).await.unwrap_err().known(), Known::MaybeAccepted);
    }
    let answering = tokio::spawn(async move { broker.store_all().await });
    let refused = within(publish("other", "2")).await;
    assert!(matches!(refused, Err(PublishError::TooManyBlockedKeys { .. })), "{refused:?}");
    until("they are free", || producer.pending() == Pending::default()).await;
    within(publish("other", "2")).await.unwrap();
    answering.abort();
}

#[tokio::test]
async fn a_submit_that_was_not_accepted_for_certain_says_so_and_blocks_its_key() {
    let stage = Stage::new("submit-doubt").await;
    let _broker = stage.broker().await;
    let producer = stage.hasty().connect().await.unwrap();
    let call = producer.call_raw(raw("a", Some("k"), "1")).timeout(SHORT);
    let error = within(call.submit()).await.unwrap_err();
    let SubmitError::Publish(error) = error else { panic!("{error:?}") };
    assert_eq!(error.known(), Known::MaybeAccepted);
    assert_eq!(producer.pending(), pending(0, 0, 1));
}
