//! What becomes of a batch that is refused, not answered or half dropped: the test answers in the
//! stream's stead, and so decides who waits and who is on the way.

use std::time::Duration;

use async_nats::Message;
use farwrite_producer::{
    Accepted, CommandId, Gather, Known, Limits, Pending, Producer, PublishError,
};
use tokio::task::JoinHandle;

use crate::stage::{Broker, LONG, Stage, header, id_of, raw, until, within};

type Call = JoinHandle<Result<Accepted, PublishError>>;

/// Some that wait behind one that is on its way alone, and not answered yet.
struct Held {
    stage: Stage,
    broker: Broker,
    producer: Producer,
    alone: (Call, Message),
    calls: Vec<(CommandId, Call)>,
}

impl Held {
    async fn new(name: &str, ack_timeout: Duration, timeouts: &[Duration]) -> Self {
        let stage = Stage::new(name).await;
        let mut broker = stage.broker().await;
        let limits = Limits::default().ack_timeout(ack_timeout);
        let builder = stage.builder().limits(limits).gather(Gather::Always);
        let producer = builder.connect().await.unwrap();
        let call = |timeout| producer.call_raw(raw("a", None, "{}")).timeout(timeout);
        // The subject is known to be answered from the first acknowledgement on.
        for _ in 0..2 {
            let first = tokio::spawn(call(LONG).publish());
            let command = broker.next().await;
            broker.store(&command, 1).await;
            within(first).await.unwrap().unwrap();
        }
        let alone = tokio::spawn(call(LONG).publish());
        let alone = (alone, broker.next().await);
        let mut calls = Vec::new();
        for timeout in timeouts {
            let call = call(*timeout);
            calls.push((call.command_id(), tokio::spawn(call.publish())));
            // On this one thread they enter in order.
            tokio::task::yield_now().await;
        }
        Self { stage, broker, producer, alone, calls }
    }

    /// Answers what is held alone.
    async fn release(&mut self) {
        self.broker.store(&self.alone.1, 2).await;
    }

    /// The next messages, with their ids.
    async fn next(&mut self, count: usize) -> (Vec<Message>, Vec<CommandId>) {
        let mut messages = Vec::new();
        for _ in 0..count {
            messages.push(self.broker.next().await);
        }
        let ids = messages.iter().map(id_of).collect();
        (messages, ids)
    }

    fn ids(&self) -> Vec<CommandId> {
        self.calls.iter().map(|(id, _)| *id).collect()
    }

    async fn nothing_is_left(self) {
        within(self.alone.0).await.unwrap().unwrap();
        until("nothing is left", || self.producer.pending() == Pending::default()).await;
        drop(self.stage);
    }
}

fn batch(message: &Message) -> Option<String> {
    header(message, "Nats-Batch-Id")
}

fn refused(code: u64, description: &str) -> String {
    let error = format!("{{\"code\":400,\"err_code\":{code},\"description\":\"{description}\"}}");
    format!("{{\"error\":{error},\"stream\":\"S\",\"seq\":0}}")
}

#[tokio::test]
async fn what_waits_leaves_as_one_batch_and_each_learns_its_place() {
    let mut held = Held::new("held", LONG, &[LONG; 3]).await;
    held.release().await;
    let (messages, ids) = held.next(3).await;
    assert_eq!(ids, held.ids());
    let id = batch(&messages[0]).unwrap();
    assert!(id.len() <= 64, "{id}");
    for (message, sequence) in messages.iter().zip(1..) {
        assert_eq!(batch(message).as_ref(), Some(&id));
        assert_eq!(header(message, "Nats-Batch-Sequence"), Some(sequence.to_string()));
        let is_last = sequence == 3;
        assert_eq!(header(message, "Nats-Batch-Commit"), is_last.then(|| "1".to_owned()));
        assert_eq!(message.reply.is_some(), is_last);
    }
    let answer = format!("{{\"stream\":\"S\",\"seq\":9,\"batch\":\"{id}\",\"count\":3}}");
    held.broker.answer(&messages[2], answer).await;
    for ((id, call), sequence) in held.calls.drain(..).zip(7..) {
        let Accepted { id: of, stream, sequence: at, duplicate, .. } =
            within(call).await.unwrap().unwrap();
        assert_eq!((of, &*stream, at, duplicate), (id, "S", sequence, false));
    }
    held.nothing_is_left().await;
}

#[tokio::test]
async fn what_was_refused_together_goes_on_alone_and_at_once() {
    for (code, description) in [
        (10201, "atomic publish batch contains duplicate message id"),
        (10174, "atomic publish is disabled"),
        (10176, "atomic publish batch is incomplete"),
        (10199, "atomic publish batch is too large: 2"),
        (10210, "atomic publish too many inflight"),
        (10077, "maximum messages exceeded"),
    ] {
        // Nobody waits for a pause between attempts, or for an answer that is missing.
        let mut held = Held::new("held-refused", LONG, &[LONG; 3]).await;
        held.release().await;
        let (messages, _) = held.next(3).await;
        held.broker.answer(&messages[2], refused(code, description)).await;
        let (messages, mut ids) = held.next(3).await;
        let mut expected = held.ids();
        ids.sort();
        expected.sort();
        assert_eq!(ids, expected);
        for message in &messages {
            assert_eq!(batch(message), None, "{code}");
            held.broker.store(message, 5).await;
        }
        for (_, call) in held.calls.drain(..) {
            assert_eq!(within(call).await.unwrap().unwrap().sequence, 5);
        }
        held.nothing_is_left().await;
    }
}

#[tokio::test]
async fn what_was_not_answered_together_is_in_doubt_and_sent_again_alone() {
    let mut held = Held::new("held-silent", Duration::from_millis(300), &[LONG; 3]).await;
    held.release().await;
    let (_, ids) = held.next(3).await;
    assert_eq!(ids, held.ids());
    let (messages, mut again) = held.next(3).await;
    let mut expected = held.ids();
    again.sort();
    expected.sort();
    assert_eq!(again, expected, "the same ids");
    for message in &messages {
        assert_eq!(batch(message), None);
        held.broker.store_duplicate(message, 5).await;
    }
    for (_, call) in held.calls.drain(..) {
        assert!(within(call).await.unwrap().unwrap().duplicate);
    }
    held.nothing_is_left().await;
}

#[tokio::test]
async fn a_doubt_about_a_batch_is_not_forgotten_for_what_is_heard_later() {
    let (ack_timeout, soon) = (Duration::from_millis(300), Duration::from_millis(1_500));
    let mut held = Held::new("held-doubt", ack_timeout, &[soon; 2]).await;
    held.release().await;
    held.next(2).await;
    // From here on the stream is full, and says so each time.
    let Held { broker, calls, .. } = &mut held;
    let answering = async {
        loop {
            let message = broker.next().await;
            broker.answer(&message, refused(10077, "maximum messages exceeded")).await;
        }
    };
    let ending = async {
        for (_, call) in calls.drain(..) {
            let error = within(call).await.unwrap().unwrap_err();
            assert!(matches!(error, PublishError::QueueFull { .. }), "{error:?}");
            assert_eq!(error.known(), Known::MaybeAccepted);
        }
    };
    tokio::select! {
        () = ending => {}
        () = answering => {}
    }
    held.nothing_is_left().await;
}

#[tokio::test]
async fn a_disk_that_failed_may_have_done_so_half_way() {
    let soon = Duration::from_millis(600);
    let mut held = Held::new("held-disk", LONG, &[soon; 2]).await;
    held.release().await;
    let (messages, _) = held.next(2).await;
    held.broker.answer(&messages[1], refused(10077, "no space left on device")).await;
    for (_, call) in held.calls.drain(..) {
        let error = within(call).await.unwrap().unwrap_err();
        assert_eq!(error.known(), Known::MaybeAccepted, "{error:?}");
    }
    held.nothing_is_left().await;
}

#[tokio::test]
async fn a_server_that_knows_no_batches_is_found_out_and_nothing_is_believed_of_it() {
    let mut held = Held::new("held-old", LONG, &[LONG; 3]).await;
    held.release().await;
    let (messages, _) = held.next(3).await;
    held.broker.store(&messages[2], 9).await;
    let (messages, _) = held.next(3).await;
    for message in &messages {
        assert_eq!(batch(message), None);
        held.broker.store_duplicate(message, 5).await;
    }
    for (_, call) in held.calls.drain(..) {
        assert_eq!(within(call).await.unwrap().unwrap().sequence, 5);
    }
    held.nothing_is_left().await;
}

#[tokio::test]
async fn who_runs_out_of_time_knows_whether_the_command_had_left() {
    let soon = Duration::from_millis(300);
    let mut held = Held::new("held-late", LONG, &[soon]).await;
    let (_, call) = held.calls.remove(0);
    let error = within(call).await.unwrap().unwrap_err();
    assert_eq!(error.known(), Known::NotAccepted, "it waited: {error:?}");
    held.release().await;
    within(&mut held.alone.0).await.unwrap().unwrap();

    let mut held = Held::new("held-out", LONG, &[soon * 2; 2]).await;
    held.release().await;
    let (messages, _) = held.next(2).await;
    for (_, call) in held.calls.drain(..) {
        let error = within(call).await.unwrap().unwrap_err();
        assert_eq!(error.known(), Known::MaybeAccepted, "it was out: {error:?}");
    }
    // Late, for nobody.
    held.broker.answer(&messages[1], refused(10176, "")).await;
    held.nothing_is_left().await;
}

#[tokio::test]
async fn a_dropped_caller_takes_out_what_waits_and_leaves_alone_what_is_on_its_way() {
    let mut held = Held::new("held-dropped", LONG, &[LONG; 4]).await;
    let (_, leaving) = held.calls.remove(1);
    leaving.abort();
    assert!(within(leaving).await.unwrap_err().is_cancelled());
    held.release().await;
    let (messages, ids) = held.next(3).await;
    assert_eq!(ids, held.ids(), "what was dropped is not sent");
    let (_, leaving) = held.calls.remove(1);
    leaving.abort();
    assert!(within(leaving).await.unwrap_err().is_cancelled());
    let id = batch(&messages[0]).unwrap();
    let answer = format!("{{\"stream\":\"S\",\"seq\":9,\"batch\":\"{id}\",\"count\":3}}");
    held.broker.answer(&messages[2], answer).await;
    for ((_, call), sequence) in held.calls.drain(..).zip([7, 9]) {
        assert_eq!(within(call).await.unwrap().unwrap().sequence, sequence);
    }
    held.nothing_is_left().await;
}
