//! Calls that are dropped. One whose message is out keeps its key's order, and is finished without its
//! caller. One whose message is not out leaves nothing, and is not sent later.

use std::time::Duration;

use farwrite_producer::{
    Gather, Journal, JournalLimits, Known, Limits, Pending, Producer, PublishError,
    ReconcileOptions,
};
use farwrite_schemas::{Lsn, headers};
use futures_util::FutureExt;
use tokio::time::timeout;

use crate::{
    order::{body, pending},
    reconcile::oblivious_worker,
    stage::{Broker, LONG, Stage, header, id_of, raw, settle, until, within},
};

/// How long an app waits for a call before it drops it.
const IMPATIENT: Duration = Duration::from_millis(200);
/// A link of which no other test knows.
const SLOW: &str = "sea";

/// The ways in which an app drops a call.
const WAYS: [Way; 4] = [Way::Timeout, Way::Select, Way::Abort, Way::Drop];

#[derive(Clone, Copy, Debug)]
enum Way {
    Timeout,
    Select,
    Abort,
    Drop,
}

/// Drops a call of the verb in this way, once the broker has heard its message.
async fn drop_out<T: Send + 'static>(
    way: Way,
    call: impl Future<Output = T> + Send + 'static,
    broker: &mut Broker,
) -> async_nats::Message {
    let mut call = Box::pin(call);
    match way {
        Way::Timeout => {
            assert!(timeout(IMPATIENT, call).await.is_err());
            broker.next().await
        }
        Way::Select => tokio::select! {
            command = broker.next() => command,
            _ = &mut call => panic!("nobody has answered"),
        },
        Way::Abort => {
            let call = tokio::spawn(call);
            let command = broker.next().await;
            call.abort();
            assert!(within(call).await.is_err());
            command
        }
        Way::Drop => {
            assert!((&mut call).now_or_never().is_none());
            let command = broker.next().await;
            drop(call);
            command
        }
    }
}

fn publish(
    producer: &Producer,
    text: &str,
) -> farwrite_producer::Call<Box<serde_json::value::RawValue>> {
    producer.call_raw(raw("a", Some("k"), text))
}

/// Stores what comes, until a message with this body has come; answers the bodies in their order,
/// a repeated one once.
async fn store_until(broker: &mut Broker, last: &str) -> Vec<String> {
    let mut bodies: Vec<String> = Vec::new();
    while bodies.last().is_none_or(|body| body != last) {
        let command = broker.next().await;
        broker.store(&command, bodies.len() as u64 + 1).await;
        if bodies.last() != Some(&body(&command)) {
            bodies.push(body(&command));
        }
    }
    bodies
}

/// The first message is on its way over a connection that was slow when the call was dropped. The
/// second call has a new connection, and a fast one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_on_a_slow_connection_stays_before_its_successors_though_its_call_was_dropped() {
    let stage = Stage::new("overtaken").await;
    let mut stream = stage.stream().await;
    let link = stage.stack.nats_link(SLOW).unwrap();
    let builder = stage.hasty().nats_url(format!("nats://{}", link.addr()));
    let producer = within(builder.connect()).await.unwrap();
    within(publish(&producer, "0").publish()).await.unwrap();
    link.set_rtt(Duration::from_secs(4));
    assert!(timeout(IMPATIENT, publish(&producer, "1").publish()).await.is_err());
    producer.client().flush().await.unwrap();
    link.set_rtt(Duration::ZERO);
    producer.client().force_reconnect().await.unwrap();
    within(publish(&producer, "2").publish()).await.unwrap();
    let all_stored = async {
        while stream.info().await.unwrap().state.last_sequence < 3 {
            tokio::task::yield_now().await;
        }
    };
    within(all_stored).await;
    let mut order = Vec::new();
    for sequence in 1..=3 {
        let message = stream.get_raw_message(sequence).await.unwrap();
        order.push(String::from_utf8(message.payload.to_vec()).unwrap());
    }
    assert_eq!(order, ["0", "1", "2"]);
    until("nothing is left", || producer.pending() == Pending::default()).await;
}

#[tokio::test]
async fn nothing_of_its_key_goes_before_a_dropped_message_is_resolved_however_it_was_dropped() {
    let stage = Stage::new("dropped-out").await;
    let mut broker = stage.broker().await;
    let producer = stage.hasty().connect().await.unwrap();
    for way in WAYS {
        for is_submit in [false, true] {
            let call = publish(&producer, "1").timeout(LONG);
            let id = call.command_id();
            let out = match is_submit {
                true => drop_out(way, call.submit(), &mut broker).await,
                false => drop_out(way, call.publish(), &mut broker).await,
            };
            assert_eq!(id_of(&out), id);
            let next = tokio::spawn(publish(&producer, "2").timeout(LONG).publish());
            let other = producer.call_raw(raw("a", Some("other"), "3")).timeout(LONG);
            let other = tokio::spawn(other.publish());
            // Nobody answers. Another key goes on.
            let mut heard = Vec::new();
            while heard.iter().filter(|text| *text == "1").count() < 3
                || !heard.contains(&"3".to_owned())
            {
                heard.push(body(&broker.next().await));
            }
            assert!(!heard.contains(&"2".to_owned()), "{way:?}: {heard:?}");
            let mut heard = store_until(&mut broker, "2").await;
            heard.retain(|text| text != "3");
            heard.dedup();
            assert_eq!(heard, ["1", "2"], "{way:?}");
            within(next).await.unwrap().unwrap();
            let other = tokio::select! {
                ended = other => ended.unwrap(),
                () = broker.store_all() => unreachable!(),
            };
            other.unwrap();
            until("nothing is left", || producer.pending() == Pending::default()).await;
            settle(&stage.client).await;
            while !broker.heard_nothing() {}
        }
    }
}

#[tokio::test]
async fn without_a_successor_a_dropped_message_is_finished_in_its_calls_own_time() {
    let stage = Stage::new("dropped-alone").await;
    let mut broker = stage.broker().await;
    let producer = stage.hasty().connect().await.unwrap();
    let out = drop_out(Way::Drop, publish(&producer, "1").publish(), &mut broker).await;
    assert_eq!(producer.pending().blocked_keys, 1);
    let again = broker.next().await;
    assert_eq!(id_of(&again), id_of(&out));
    broker.store(&again, 1).await;
    until("nothing is left", || producer.pending() == Pending::default()).await;

    // Nobody answers: then it blocks its key by its name, as one that ended in doubt.
    let call = publish(&producer, "2").timeout(Duration::from_millis(700));
    let id = call.command_id();
    drop_out(Way::Drop, call.publish(), &mut broker).await;
    until("its time is up", || {
        producer.pending().answers == 0 && producer.pending().in_flight == 0
    })
    .await;
    assert_eq!(producer.pending(), pending(0, 0, 1));
    let next = publish(&producer, "3").timeout(IMPATIENT).publish();
    let error = within(next).await.unwrap_err();
    let PublishError::KeyBlocked { unresolved, .. } = error else { panic!("{error:?}") };
    assert_eq!((unresolved, error.known()), (id, Known::NotAccepted));
}

#[tokio::test]
async fn a_call_that_is_dropped_before_its_message_is_out_leaves_nothing_and_is_not_sent_later() {
    let stage = Stage::new("dropped-before").await;
    let mut broker = stage.broker().await;
    let producer = stage.hasty().connect().await.unwrap();
    drop(publish(&producer, "\"never polled\"").submit());
    assert_eq!(producer.pending(), Pending::default());

    // In its key's queue, behind one that is out.
    let out = tokio::spawn(publish(&producer, "\"out\"").timeout(LONG).publish());
    let first = broker.next().await;
    let queued = tokio::spawn(publish(&producer, "\"queued\"").submit());
    let next = tokio::spawn(publish(&producer, "\"next\"").timeout(LONG).submit());
    until("all are pending", || producer.pending().calls == 3).await;
    queued.abort();
    assert!(within(queued).await.is_err());
    broker.store(&first, 1).await;
    within(out).await.unwrap().unwrap();
    let heard = store_until(&mut broker, "\"next\"").await;
    assert!(!heard.contains(&"\"queued\"".to_owned()), "{heard:?}");
    // Accepted, it waits for its reply only, and holds nothing up.
    until("it waits for its reply only", || producer.pending() == pending(1, 1, 0)).await;
    next.abort();
    assert!(within(next).await.is_err());
    assert_eq!(producer.pending(), Pending::default());

    // Behind one that blocks the key.
    let blocking = publish(&producer, "4").timeout(IMPATIENT).publish();
    assert_eq!(within(blocking).await.unwrap_err().known(), Known::MaybeAccepted);
    assert!(timeout(IMPATIENT, publish(&producer, "5").publish()).await.is_err());
    let last = tokio::spawn(publish(&producer, "6").timeout(LONG).publish());
    let heard = store_until(&mut broker, "6").await;
    assert_eq!(heard, ["4", "6"]);
    within(last).await.unwrap().unwrap();
    until("nothing is left", || producer.pending() == Pending::default()).await;
}

#[tokio::test]
async fn without_a_connection_a_dropped_call_is_not_sent_when_there_is_one() {
    let stage = Stage::new("dropped-away").await;
    let mut broker = stage.broker().await;
    // Nobody listens there yet.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    let options = async_nats::ConnectOptions::new().retry_on_initial_connect();
    let options = options.reconnect_delay_callback(|_| Duration::from_millis(20));
    let builder = stage.builder().nats_url(url).nats_options(options);
    let producer = within(builder.connect()).await.unwrap();
    assert!(timeout(IMPATIENT, publish(&producer, "1").publish()).await.is_err());
    assert_eq!(producer.pending(), Pending::default());
    let target = stage.stack.nats().addr();
    let carrying = tokio::spawn(async move {
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut server = tokio::net::TcpStream::connect(target).await.unwrap();
            tokio::spawn(
                async move { tokio::io::copy_bidirectional(&mut client, &mut server).await },
            );
        }
    });
    let next = tokio::spawn(publish(&producer, "2").timeout(LONG).publish());
    assert_eq!(store_until(&mut broker, "2").await, ["2"]);
    within(next).await.unwrap().unwrap();
    carrying.abort();
}

#[tokio::test]
async fn what_was_dropped_in_a_batch_keeps_its_keys_order_whether_one_was_dropped_or_all() {
    for dropped in [1, 3] {
        let stage = Stage::new("dropped-batch").await;
        let mut broker = stage.broker().await;
        let limits = Limits::default().ack_timeout(Duration::from_secs(1));
        let builder = stage.builder().limits(limits).gather(Gather::Always);
        let producer = builder.connect().await.unwrap();
        let call = |key: &str, text: &str| {
            producer.call_raw(raw("a", Some(key), text)).timeout(LONG).publish()
        };
        // The subject is known to be answered from the first acknowledgement on.
        for _ in 0..2 {
            let first = tokio::spawn(call("alone", "0"));
            let command = broker.next().await;
            broker.store(&command, 1).await;
            within(first).await.unwrap().unwrap();
        }
        let alone = tokio::spawn(call("alone", "1"));
        let held = broker.next().await;
        let mut calls = Vec::new();
        for key in ["k0", "k1", "k2"] {
            calls.push(tokio::spawn(call(key, &format!("\"{key}\""))));
            tokio::task::yield_now().await;
        }
        broker.store(&held, 2).await;
        within(alone).await.unwrap().unwrap();
        let mut batch = Vec::new();
        for _ in 0..3 {
            batch.push(broker.next().await);
        }
        for call in calls.drain(..dropped) {
            call.abort();
            assert!(within(call).await.is_err());
        }
        // Nobody answers the batch: each of its commands is in doubt.
        assert!(header(&batch[0], "Nats-Batch-Id").is_some());
        let next = tokio::spawn(call("k0", "\"next\""));
        let heard = store_until(&mut broker, "\"next\"").await;
        assert!(heard.contains(&"\"k0\"".to_owned()), "{dropped} dropped: {heard:?}");
        within(next).await.unwrap().unwrap();
        tokio::select! {
            () = until("nothing is left", || producer.pending() == Pending::default()) => {}
            () = broker.store_all() => {}
        }
        for call in calls {
            within(call).await.unwrap().unwrap();
        }
    }
}

#[tokio::test]
async fn a_reconcile_that_is_dropped_keeps_the_order_of_what_it_was_sending() {
    let stage = Stage::new("dropped-reconcile").await;
    let mut broker = stage.broker().await;
    let answering = oblivious_worker(&stage).await;
    let journal = Journal::in_memory(JournalLimits::default());
    let producer = stage.hasty().journal(journal).connect().await.unwrap();
    let lost = tokio::spawn(publish(&producer, "1").publish());
    let command = broker.next().await;
    broker.store(&command, 1).await;
    within(lost).await.unwrap().unwrap();
    let options = ReconcileOptions::default().min_age(Duration::ZERO).timeout(LONG);
    let reconciling = tokio::spawn({
        let producer = producer.clone();
        async move {
            loop {
                producer.reconcile(options.clone()).await.unwrap();
                tokio::task::yield_now().await;
            }
        }
    });
    let again = broker.next().await;
    assert_eq!(id_of(&again), id_of(&command));
    reconciling.abort();
    let _ = reconciling.await;
    let next = tokio::spawn(publish(&producer, "2").timeout(LONG).publish());
    let mut heard = Vec::new();
    while heard.len() < 2 {
        heard.push(body(&broker.next().await));
    }
    assert_eq!(heard, ["1", "1"], "the second waits");
    assert_eq!(store_until(&mut broker, "2").await, ["1", "2"]);
    within(next).await.unwrap().unwrap();
    answering.abort();
}

#[tokio::test]
async fn a_dropped_submit_leaves_no_route_behind_wherever_it_was() {
    let stage = Stage::new("dropped-routes").await;
    let mut broker = stage.broker().await;
    let producer = stage.producer().await;
    for round in 0..20 {
        let call = tokio::spawn(publish(&producer, &round.to_string()).submit());
        let command = broker.next().await;
        let is_accepted = round % 2 == 0;
        if is_accepted {
            broker.store(&command, 1).await;
            until("it is accepted", || producer.pending().keys == 0).await;
        }
        call.abort();
        assert!(within(call).await.is_err());
        assert_eq!(producer.pending().replies, 0);
        if !is_accepted {
            let again = broker.next().await;
            assert_eq!(id_of(&again), id_of(&command));
            assert!(header(&again, headers::REPLY).is_some());
            broker.store(&again, 1).await;
        }
        // A late reply is for nobody.
        stage.reply(&command, &stage.applied(id_of(&command), "7", Lsn(9))).await;
        until("nothing is left", || producer.pending() == Pending::default()).await;
    }
}

#[tokio::test]
async fn a_producer_that_is_dropped_sends_nothing_more() {
    let stage = Stage::new("dropped-producer").await;
    let mut broker = stage.broker().await;
    let producer = stage.hasty().connect().await.unwrap();
    let out = drop_out(Way::Drop, publish(&producer, "1").timeout(LONG).publish(), &mut broker);
    let out = out.await;
    drop(producer);
    let other = stage.hasty().connect().await.unwrap();
    let next = tokio::spawn(publish(&other, "2").timeout(LONG).publish());
    let mut heard = store_until(&mut broker, "2").await;
    within(next).await.unwrap().unwrap();
    // What was under way when the producer was dropped may have been heard.
    heard.retain(|text| *text != body(&out));
    assert_eq!(heard, ["2"]);
    settle(&stage.client).await;
    assert!(broker.heard_nothing(), "the first one's task has ended");
}
