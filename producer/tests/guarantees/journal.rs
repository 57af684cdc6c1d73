//! The journal beside the verbs: what it keeps of a publish, and what it refuses.

use std::time::Duration;

use farwrite_producer::{
    BuildError, Journal, JournalError, JournalLimits, Known, Pending, PublishError,
};

use crate::stage::{Stage, id_of, raw, until, within};

const SHORT: Duration = Duration::from_millis(700);

#[tokio::test]
async fn a_full_journal_refuses_the_publish_and_says_what_to_do() {
    let stage = Stage::new("full").await;
    let mut broker = stage.broker().await;
    let journal = Journal::in_memory(JournalLimits::default().max_commands(1));
    let producer = stage.builder().journal(journal).connect().await.unwrap();
    let publish = || tokio::spawn(producer.call_raw(raw("a", Some("k"), "1")).publish());
    let publishing = publish();
    let command = broker.next().await;
    broker.store(&command, 1).await;
    let first = within(publishing).await.unwrap().unwrap().id;

    let error = within(publish()).await.unwrap().unwrap_err();
    let PublishError::JournalFull { commands: 1, .. } = error else { panic!("{error:?}") };
    assert_eq!(error.known(), Known::NotAccepted);
    assert!(error.to_string().contains("reconcile, or raise its limits"), "{error}");
    assert_eq!(producer.pending(), Pending::default(), "its key is not blocked");
    // The same id again needs no more room.
    let again = producer.call_raw(raw("a", Some("k"), "1")).id(first);
    let again = tokio::spawn(again.publish());
    let command = broker.next().await;
    assert_eq!(id_of(&command), first);
    broker.store_duplicate(&command, 1).await;
    assert!(within(again).await.unwrap().unwrap().duplicate);

    assert!(producer.forget(first));
    let publishing = publish();
    let command = broker.next().await;
    broker.store(&command, 2).await;
    within(publishing).await.unwrap().unwrap();
}

#[tokio::test]
async fn it_keeps_what_may_be_stored_and_nothing_else() {
    let stage = Stage::new("keeps").await;
    let journal = Journal::in_memory(JournalLimits::default());
    let producer = stage.hasty().journal(journal).connect().await.unwrap();
    let commands = || producer.journal().unwrap().commands;
    let call = |key, body| producer.call_raw(raw("a", key, body)).timeout(SHORT);
    // Nobody takes it: nothing was stored.
    for key in [None, Some("k")] {
        let error = within(call(key, "1").publish()).await.unwrap_err();
        assert!(matches!(error, PublishError::UnknownStream { .. }), "{error:?}");
        assert_eq!(commands(), 0);
    }
    let mut broker = stage.broker().await;
    // No answer.
    for key in [None, Some("k")] {
        let error = within(call(key, "2").publish()).await.unwrap_err();
        assert_eq!(error.known(), Known::MaybeAccepted);
        assert!(producer.forget(error.id()));
    }
    // Refused, with its last word.
    let refused = tokio::spawn(call(Some("other"), "3").publish());
    let command = loop {
        let command = broker.next().await;
        if command.payload == "3" {
            break command;
        }
    };
    let sealed = "{\"error\":{\"code\":400,\"err_code\":10109,\"description\":\"sealed\"}}";
    broker.answer(&command, sealed.to_owned()).await;
    within(refused).await.unwrap().unwrap_err();
    assert_eq!(commands(), 0);
    // Dropped when it was out, and before.
    let out = tokio::spawn(call(Some("other"), "4").publish());
    let command = broker.next().await;
    let queued = tokio::spawn(call(Some("other"), "5").publish());
    until("both are pending", || producer.pending().calls == 2).await;
    queued.abort();
    out.abort();
    until("nothing is pending", || producer.pending().calls == 0).await;
    assert_eq!(commands(), 1);
    assert!(producer.forget(id_of(&command)));
}

#[tokio::test]
async fn a_file_has_one_producer() {
    let stage = Stage::new("one").await;
    let path = stage.stack.folder().unwrap().join(format!("{}.journal", stage.database));
    let connect = || {
        let journal = Journal::file(&path, JournalLimits::default());
        stage.builder().journal(journal).connect()
    };
    let producer = connect().await.unwrap();
    let refused = connect().await;
    assert!(matches!(refused, Err(BuildError::Journal(JournalError::InUse { .. }))), "{refused:?}");
    drop(producer);
    // Its last task may still be ending.
    connect().await.unwrap();
}
