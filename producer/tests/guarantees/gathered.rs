//! Commands that leave in one batch are each stored, ordered, refused and acknowledged as if they
//! had left alone. Against the real stream; `Gather::Always`, so that no measurement decides.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_nats::{
    HeaderMap,
    jetstream::stream::{Config, Stream},
};
use farwrite_devstack::Devstack;
use farwrite_producer::{
    Accepted, CommandId, Gather, Known, Limits, Pending, Producer, PublishError, SizeLimit,
};
use farwrite_schemas::headers;
use futures_util::future::join_all;

use crate::stage::{LONG, Stage, raw, settle, until, within};

/// Long enough for a batch on a slow disk.
const SHORT: Duration = Duration::from_secs(5);
const BATCH: &str = "Nats-Batch-Id";

fn atomic() -> Config {
    Config { allow_atomic_publish: true, ..Config::default() }
}

/// A producer that gathers, with one command stored already: the subject is known to be answered.
async fn gathering(stage: &Stage, gather: Gather) -> Producer {
    let producer = stage.builder().gather(gather).connect().await.unwrap();
    within(producer.call_raw(raw("a", None, "0")).publish()).await.unwrap();
    producer
}

/// Publishes all at once: the first goes alone, the others wait for it and leave together.
async fn publish_all(
    producer: &Producer,
    calls: impl IntoIterator<Item = (CommandId, Option<&'static str>, String)>,
) -> Vec<Result<Accepted, PublishError>> {
    let publish = |(id, key, body): (_, _, String)| {
        producer.call_raw(raw("a", key, &body)).id(id).timeout(LONG).publish()
    };
    within(join_all(calls.into_iter().map(publish).collect::<Vec<_>>())).await
}

fn calls(count: usize) -> Vec<(CommandId, Option<&'static str>, String)> {
    (0..count).map(|n| (CommandId::now(), None, n.to_string())).collect()
}

/// What the stream holds: by sequence, the id, the body and the batch.
async fn stored(stream: &mut Stream) -> BTreeMap<u64, (CommandId, String, Option<String>)> {
    let last = stream.info().await.unwrap().state.last_sequence;
    let mut stored = BTreeMap::new();
    for sequence in 1..=last {
        let message = stream.get_raw_message(sequence).await.unwrap();
        let header = |name| message.headers.get(name).map(ToString::to_string);
        let id = header(headers::COMMAND_ID).unwrap().parse().unwrap();
        let body = String::from_utf8(message.payload.to_vec()).unwrap();
        stored.insert(sequence, (id, body, header(BATCH)));
    }
    stored
}

#[tokio::test]
async fn each_has_its_own_place_and_a_key_its_order() {
    let stage = Stage::new("gathered").await;
    let mut stream = stage.stream_with(atomic()).await;
    let producer = gathering(&stage, Gather::Always).await;
    let keys = ["k0", "k1", "k2", "k3", "k4", "k5", "k6"];
    let calls: Vec<_> = calls(200)
        .into_iter()
        .zip(keys.into_iter().cycle())
        .map(|((id, _, body), key)| (id, Some(key), body))
        .collect();
    let accepted = publish_all(&producer, calls.clone()).await;
    let stored = stored(&mut stream).await;
    assert_eq!(stored.len(), 201);
    let mut last_of_key = BTreeMap::new();
    for ((id, key, body), accepted) in calls.iter().zip(accepted) {
        let accepted = accepted.unwrap();
        assert_eq!((accepted.id, accepted.duplicate), (*id, false));
        assert_eq!(accepted.stream, stage.database.as_str());
        let (stored_id, stored_body, _) = &stored[&accepted.sequence];
        assert_eq!((stored_id, stored_body), (id, body), "at {}", accepted.sequence);
        let before = last_of_key.insert(*key, accepted.sequence);
        assert!(before < Some(accepted.sequence), "{key:?} went out of order");
    }
    let mut batches: BTreeMap<&String, Vec<u64>> = BTreeMap::new();
    for (sequence, (_, _, batch)) in &stored {
        if let Some(batch) = batch {
            batches.entry(batch).or_default().push(*sequence);
        }
    }
    assert!(batches.values().any(|sequences| sequences.len() > 1), "{batches:?}");
    for sequences in batches.values() {
        let next_to_each_other = sequences.windows(2).all(|pair| pair[0] + 1 == pair[1]);
        assert!(next_to_each_other, "{sequences:?}");
    }
    assert_eq!(producer.pending(), Pending::default());
}

#[tokio::test]
async fn an_id_that_is_stored_already_does_no_harm_to_its_companions() {
    let stage = Stage::new("gathered-twice").await;
    let mut stream = stage.stream_with(atomic()).await;
    let producer = gathering(&stage, Gather::Always).await;
    let mut calls = calls(10);
    let known = within(producer.call_raw(raw("a", None, "0")).id(calls[5].0).publish()).await;
    // And one that is in the batch twice.
    calls.push(calls[7].clone());
    let accepted = publish_all(&producer, calls.clone()).await;
    let accepted: Vec<_> = accepted.into_iter().map(Result::unwrap).collect();
    assert!(accepted[5].duplicate);
    assert_eq!(accepted[5].sequence, known.unwrap().sequence);
    assert_eq!(accepted[7].sequence, accepted[10].sequence);
    assert!(accepted[7].duplicate != accepted[10].duplicate);
    assert_eq!(accepted.iter().filter(|accepted| accepted.duplicate).count(), 2);
    let stored = stored(&mut stream).await;
    let ids: HashSet<_> = stored.values().map(|(id, _, _)| *id).collect();
    assert_eq!((stored.len(), ids.len()), (11, 11), "each once");
    for ((id, _, _), accepted) in calls.iter().zip(&accepted) {
        assert_eq!(stored[&accepted.sequence].0, *id);
    }
}

#[tokio::test]
async fn each_has_its_own_error() {
    let stage = Stage::new("gathered-large").await;
    let config = Config { max_message_size: 1_000, ..atomic() };
    let mut stream = stage.stream_with(config).await;
    let producer = gathering(&stage, Gather::Always).await;
    let mut several = calls(10);
    several[4].2 = format!("\"{}\"", "x".repeat(1_100));
    several[6].2 = format!("\"{}\"", "x".repeat(250_000));
    let accepted = publish_all(&producer, several).await;
    for (index, result) in accepted.into_iter().enumerate() {
        match (index, result) {
            (4, Err(PublishError::TooLarge { limit: SizeLimit::Stream, known, .. }))
            | (6, Err(PublishError::TooLarge { limit: SizeLimit::Server { .. }, known, .. })) => {
                assert_eq!(known, Known::NotAccepted);
            }
            (4 | 6, other) => panic!("{index}: {other:?}"),
            (_, result) => assert!(!result.unwrap().duplicate),
        }
    }
    assert_eq!(stored(&mut stream).await.len(), 9);
    assert_eq!(producer.pending(), Pending::default());
}

#[tokio::test]
async fn a_full_stream_takes_as_many_as_it_may_and_refuses_the_others() {
    let stage = Stage::new("gathered-full").await;
    let mut stream = stage.stream_with(Config { max_messages: 11, ..atomic() }).await;
    let producer = gathering(&stage, Gather::Always).await;
    let publish = |(id, _, body): (_, _, String)| {
        producer.call_raw(raw("a", None, &body)).id(id).timeout(SHORT).publish()
    };
    let accepted = within(join_all(calls(20).into_iter().map(publish))).await;
    let (mut sequences, mut refused) = (HashSet::new(), Vec::new());
    for result in accepted {
        match result {
            Ok(accepted) => assert!(sequences.insert(accepted.sequence)),
            Err(error) => {
                assert!(matches!(error, PublishError::QueueFull { .. }), "{error:?}");
                refused.push(error.known());
            }
        }
    }
    assert_eq!(sequences.len(), 10);
    // Between two attempts it is known; when the time is up in the middle of one, it is not.
    assert!(refused.contains(&Known::NotAccepted), "{refused:?}");
    assert_eq!(stored(&mut stream).await.len(), 11);
    assert_eq!(producer.pending(), Pending::default());
}

#[tokio::test]
async fn without_batches_in_the_stream_or_in_the_settings_every_command_goes_alone() {
    for (name, config, gather) in [
        ("ungathered", Config::default(), Gather::Always),
        ("ungathered-off", atomic(), Gather::Never),
    ] {
        let stage = Stage::new(name).await;
        let mut stream = stage.stream_with(config).await;
        let producer = gathering(&stage, gather).await;
        for _ in 0..2 {
            let accepted = publish_all(&producer, calls(20)).await;
            assert!(accepted.into_iter().all(|result| !result.unwrap().duplicate));
        }
        let stored = stored(&mut stream).await;
        assert_eq!(stored.len(), 41);
        assert!(stored.values().all(|(_, _, batch)| batch.is_none()), "{name}: {stored:?}");
    }
}

#[tokio::test]
async fn what_is_forbidden_is_told_and_its_companions_go_on() {
    let stage = Stage::new("gathered-jailed").await;
    stage.stream_with(atomic()).await;
    let builder = stage.builder().nats_url(stage.url_as("jailed")).gather(Gather::Always);
    let producer = builder.connect().await.unwrap();
    within(producer.call_raw(raw("allowed", None, "0")).publish()).await.unwrap();
    let names = ["allowed", "allowed", "forbidden", "allowed", "allowed"];
    let publish = |name| producer.call_raw(raw(name, None, "1")).publish();
    let results = within(join_all(names.map(publish))).await;
    for (name, result) in names.into_iter().zip(results) {
        match (name, result) {
            ("forbidden", Err(PublishError::NotPermitted { known, .. })) => {
                assert_eq!(known, Known::NotAccepted);
            }
            (_, result) => assert!(!result.unwrap().duplicate),
        }
    }
}

/// What the producer relies on: a batch without its commit is none.
#[tokio::test]
async fn a_batch_that_was_cut_short_stores_nothing() {
    let stage = Stage::new("gathered-cut").await;
    let mut stream = stage.stream_with(atomic()).await;
    let publisher = async_nats::connect(stage.stack.nats().url()).await.unwrap();
    let subject = format!("farwrite.{}.cmd.jfk.a", stage.database);
    let send = |sequence: u64, commit: bool| {
        let mut headers = HeaderMap::new();
        headers.insert(headers::COMMAND_ID, CommandId::now().to_string());
        headers.insert(BATCH, "cut");
        headers.insert("Nats-Batch-Sequence", sequence.to_string());
        if commit {
            headers.insert("Nats-Batch-Commit", "1");
        }
        (subject.clone(), headers, "{}".into())
    };
    for sequence in 1..=3 {
        let (subject, headers, body) = send(sequence, false);
        publisher.publish_with_headers(subject, headers, body).await.unwrap();
    }
    settle(&publisher).await;
    drop(publisher);
    // The commit of another connection, behind a gap.
    let (subject, headers, body) = send(5, true);
    let refused = stage.client.request_with_headers(subject, headers, body).await.unwrap();
    assert!(String::from_utf8_lossy(&refused.payload).contains("10176"), "{refused:?}");
    assert_eq!(stream.info().await.unwrap().state.messages, 0);
}

/// The stack of one test: its nats-server is killed.
async fn own_stack() -> &'static Devstack {
    let stack = Devstack::builder().regions(["ewr"]).start().await.unwrap();
    Box::leak(Box::new(stack))
}

/// What goes on while the server is killed.
#[derive(Default)]
struct Load {
    acknowledged: AtomicUsize,
    is_over: AtomicBool,
}

impl Load {
    /// Returns when some hundred more were acknowledged.
    async fn runs(&self) {
        let enough = self.acknowledged.load(Ordering::SeqCst) + 500;
        until("the load runs", || self.acknowledged.load(Ordering::SeqCst) > enough).await;
    }
}

#[tokio::test]
async fn what_was_acknowledged_is_stored_once_though_the_server_is_killed_again_and_again() {
    let stage = Stage::on(own_stack().await, "gathered-killed").await;
    let mut stream = stage.stream_with(atomic()).await;
    let limits = Limits::default().ack_timeout(Duration::from_millis(300));
    let builder = stage.builder().limits(limits).gather(Gather::Always);
    let producer = builder.connect().await.unwrap();
    let load = Arc::new(Load::default());
    let publishers: Vec<_> = (0..64)
        .map(|number| {
            let (producer, load) = (producer.clone(), Arc::clone(&load));
            tokio::spawn(async move {
                let (key, mut acknowledged) = (format!("k{number}"), Vec::new());
                while !load.is_over.load(Ordering::SeqCst) {
                    let call = producer.call_raw(raw("a", Some(&key), "{}"));
                    if let Ok(accepted) = call.publish().await {
                        load.acknowledged.fetch_add(1, Ordering::SeqCst);
                        acknowledged.push(accepted);
                    }
                }
                acknowledged
            })
        })
        .collect();
    for _ in 0..3 {
        load.runs().await;
        stage.stack.nats().kill().await.unwrap();
        stage.stack.nats().start().await.unwrap();
    }
    load.runs().await;
    load.is_over.store(true, Ordering::SeqCst);
    let mut acknowledged = Vec::new();
    for publisher in publishers {
        let of_key = within(publisher).await.unwrap();
        assert!(of_key.is_sorted_by_key(|accepted| accepted.sequence), "a key went out of order");
        acknowledged.extend(of_key);
    }
    let stored = stored(&mut stream).await;
    let ids: HashSet<_> = stored.values().map(|(id, _, _)| *id).collect();
    assert_eq!(ids.len(), stored.len(), "something is stored twice");
    for accepted in &acknowledged {
        assert_eq!(stored[&accepted.sequence].0, accepted.id);
    }
    assert!(stored.values().any(|(_, _, batch)| batch.is_some()), "nothing was gathered");
    until("nothing is pending", || producer.pending() == Pending::default()).await;
}
