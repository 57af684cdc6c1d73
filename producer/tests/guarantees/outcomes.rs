//! `submit` answers with the outcome, whichever way it comes, and never with another command's.

use std::{borrow::Cow, time::Duration};

use async_nats::Subscriber;
use farwrite_producer::{
    Command, CommandId, Key, LastHeard, NotEnded, Outcome, OutcomeAnswer, OutcomeError, Pending,
    Rejection, Reply, SubmitError,
};
use farwrite_schemas::{Fingerprint, Lsn, OutcomeRequest, headers};
use futures_util::StreamExt;
use serde::Serialize;
use tokio::task::JoinHandle;

use crate::stage::{Stage, header, id_of, raw, until, within};

#[derive(Serialize)]
struct PlaceOrder {
    customer: &'static str,
}

impl Command for PlaceOrder {
    const NAME: &'static str = "order.place";
    const VERSION: u32 = 2;
    type Output = u64;
    fn key(&self) -> Option<Cow<'_, str>> {
        Some(self.customer.into())
    }
}

const ORDER: PlaceOrder = PlaceOrder { customer: "alice" };

#[tokio::test]
async fn a_reply_answers_also_when_it_overtakes_the_acknowledgement() {
    let stage = Stage::new("reply").await;
    let mut broker = stage.broker().await;
    let producer = stage.producer().await;
    for overtakes in [false, true] {
        let call = tokio::spawn(producer.submit(&ORDER));
        let command = broker.next().await;
        assert_eq!(
            command.subject.as_str(),
            stage.subjects.command(producer.origin(), &"order.place".parse().unwrap(),)
        );
        assert_eq!(&command.payload[..], b"{\"customer\":\"alice\"}");
        assert_eq!(header(&command, headers::KEY).as_deref(), Some("alice"));
        assert_eq!(header(&command, headers::VERSION).as_deref(), Some("2"));
        let inbox = header(&command, headers::REPLY).unwrap();
        assert!(inbox.starts_with(&stage.subjects.reply_prefix(producer.origin())), "{inbox}");
        if !overtakes {
            broker.store(&command, 1).await;
        }
        stage.reply(&command, &stage.applied(id_of(&command), "7", Lsn(9))).await;
        let committed = within(call).await.unwrap().unwrap();
        assert_eq!((committed.id, committed.output), (id_of(&command), 7));
        assert_eq!(committed.bookmark, stage.bookmark(Lsn(9)));
        assert_eq!(producer.pending(), Pending::default());
    }
}

/// Answers every question until a call has ended. Not only the first: the producer asks anew where an
/// answer takes longer than one attempt, and nobody waits for the answer to the first then.
async fn answered<T>(
    stage: &Stage,
    questions: &mut Subscriber,
    mut call: JoinHandle<T>,
    mut answer: impl FnMut(&OutcomeRequest) -> Vec<u8>,
) -> T {
    let answered = async {
        loop {
            tokio::select! {
                biased;
                ended = &mut call => return ended.unwrap(),
                Some(question) = questions.next() => {
                    let request = serde_json::from_slice(&question.payload).unwrap();
                    let answer = answer(&request).into();
                    stage.client.publish(question.reply.unwrap(), answer).await.unwrap();
                }
            }
        }
    };
    within(answered).await
}

#[tokio::test]
async fn a_lost_reply_is_replaced_by_the_ledgers_answer() {
    let stage = Stage::new("lost").await;
    stage.stream().await;
    let mut questions = stage.questions().await;
    let producer = stage.producer().await;
    let call = tokio::spawn(producer.submit(&ORDER));
    // The reply never comes. The first answer is that it is not applied yet.
    let mut is_known = false;
    let answer = |request: &OutcomeRequest| {
        let (name, key) = ("order.place".parse().unwrap(), Key::new("alice").unwrap());
        let body = serde_json::to_vec(&ORDER).unwrap();
        assert_eq!(request.fingerprint, Some(Fingerprint::of(&name, 2, Some(&key), &body)));
        let answer = if std::mem::replace(&mut is_known, true) {
            OutcomeAnswer::Known(stage.applied(request.id, "7", Lsn(9)))
        } else {
            OutcomeAnswer::Pending(NotEnded::unknown(request.id))
        };
        answer.encode().unwrap()
    };
    assert_eq!(answered(&stage, &mut questions, call, answer).await.unwrap().output, 7);
    assert_eq!(producer.pending(), Pending::default());
}

#[tokio::test]
async fn a_duplicate_is_asked_for_at_once_and_another_body_is_named() {
    let stage = Stage::new("reused").await;
    let mut broker = stage.broker().await;
    let mut questions = stage.questions().await;
    let producer = stage.producer().await;
    let id = CommandId::now();
    let first = producer.call_raw(raw("a", None, "1")).id(id).submit();
    let first = tokio::spawn(first);
    let stored = broker.next().await;
    broker.store(&stored, 1).await;
    let began = tokio::time::Instant::now();
    let second = tokio::spawn(producer.call_raw(raw("a", None, "2")).id(id).submit());
    let dropped = broker.next().await;
    broker.store_duplicate(&dropped, 1).await;
    let question = within(questions.next()).await.unwrap();
    assert!(began.elapsed() < Duration::from_millis(900), "asked without the usual pause");
    // The reply to the first must not answer the second, although it carries the same id.
    stage.reply(&stored, &stage.applied(id, "1", Lsn(9))).await;
    assert_eq!(within(first).await.unwrap().unwrap().output.get(), "1");
    let rejection = Rejection::new("id_reused", "another command has this id");
    let outcome = Outcome::Rejected(rejection.clone());
    let reply = Reply { id, outcome, bookmark: stage.bookmark(Lsn(10)), record: None };
    let answer = reply.encode().unwrap();
    stage.client.publish(question.reply.unwrap(), answer.clone().into()).await.unwrap();
    let told = answered(&stage, &mut questions, second, |_| answer.clone()).await;
    let error = told.unwrap_err();
    let SubmitError::Rejected { rejection: told, bookmark, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!((*told, bookmark), (rejection, stage.bookmark(Lsn(10))));
}

#[tokio::test]
async fn everyone_who_submits_one_id_is_answered() {
    let stage = Stage::new("together").await;
    let mut broker = stage.broker().await;
    let producer = stage.producer().await;
    let id = CommandId::now();
    let submit = || tokio::spawn(producer.call_raw(raw("a", None, "1")).id(id).submit());
    let calls = [submit(), submit(), submit()];
    let first = broker.next().await;
    broker.store(&first, 1).await;
    for _ in 0..2 {
        let copy = broker.next().await;
        assert_eq!(id_of(&copy), id);
        broker.store_duplicate(&copy, 1).await;
    }
    until("all wait", || producer.pending().replies == 3).await;
    stage.reply(&first, &stage.applied(id, "\"x\"", Lsn(9))).await;
    for call in calls {
        assert_eq!(within(call).await.unwrap().unwrap().output.get(), "\"x\"");
    }
    until("nothing is left", || producer.pending() == Pending::default()).await;
}

#[tokio::test]
async fn a_submit_out_of_time_says_where_the_command_is() {
    let stage = Stage::new("late").await;
    stage.stream().await;
    let producer = stage.producer().await;
    let call = producer.call(&ORDER).timeout(Duration::from_millis(1_500));
    let id = call.command_id();
    let error = within(call.submit()).await.unwrap_err();
    let SubmitError::TimedOut { accepted, last_heard } = error else { panic!("{error:?}") };
    assert_eq!((accepted.id, accepted.sequence), (id, 1));
    assert_eq!(last_heard, LastHeard::NoWorker);
    assert_eq!(producer.pending(), Pending::default());
}

#[tokio::test]
async fn an_output_of_another_type_and_an_unreadable_reply_lose_nothing() {
    let stage = Stage::new("output").await;
    let mut broker = stage.broker().await;
    let producer = stage.producer().await;
    let call = tokio::spawn(producer.submit(&ORDER));
    let command = broker.next().await;
    let inbox = header(&command, headers::REPLY).unwrap();
    stage.client.publish(inbox, "no reply".into()).await.unwrap();
    stage.reply(&command, &stage.applied(id_of(&command), "\"secret\"", Lsn(9))).await;
    let error = within(call).await.unwrap().unwrap_err();
    assert!(!format!("{error:?}").contains("RawValue"), "{error:?}");
    let SubmitError::Output { id, raw, bookmark, .. } = error else { panic!("{error:?}") };
    assert_eq!((id, raw.0.get()), (id_of(&command), "\"secret\""));
    assert_eq!(bookmark, stage.bookmark(Lsn(9)));
}

#[tokio::test]
async fn an_outcome_is_asked_for_by_id() {
    let stage = Stage::new("outcome").await;
    let producer = stage.producer().await;
    let id = CommandId::now();
    let nobody = within(producer.outcome_within(id, Duration::from_millis(300))).await;
    assert!(matches!(nobody, Err(OutcomeError::NoWorker { .. })), "{nobody:?}");
    let mut questions = stage.questions().await;
    let asking = tokio::spawn({
        let producer = producer.clone();
        async move { producer.outcome(id).await }
    });
    let answer = stage.applied(id, "7", Lsn(9)).encode().unwrap();
    let answer = answered(&stage, &mut questions, asking, |_| answer.clone()).await.unwrap();
    assert!(matches!(answer, OutcomeAnswer::Known(reply) if reply.id == id));
    assert_eq!(producer.pending(), Pending::default());
}
