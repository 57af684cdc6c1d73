//! A journal in a file: what survives, what is refused, and how large it gets.

use std::{
    fs,
    path::Path,
    sync::{Arc, atomic::AtomicBool},
};

use bytes::Bytes;
use farwrite_schemas::{CommandId, DatabaseName, Key, Origin, Subjects};

use super::{record, *};
use crate::outbox::{
    message::{Message, tests::message},
    target::tests::targets,
};

async fn open_as(path: &Path, database: &str) -> Result<Arc<Keeping>, JournalError> {
    let subjects = Subjects::new(DatabaseName::new(database).unwrap());
    let journal = Journal::file(path, JournalLimits::default());
    Keeping::open(journal, &subjects, &Origin::new("jfk").unwrap()).await.map(Arc::new)
}

async fn open(path: &Path) -> Arc<Keeping> {
    open_as(path, "shop").await.unwrap()
}

/// Writes down a command whose publish is acknowledged.
async fn sent(journal: &Arc<Keeping>, message: &Arc<Message>) -> CommandId {
    JournalHold::enter(journal, message).await.unwrap().stored("S", 7);
    message.id
}

fn ids(journal: &Keeping) -> Vec<CommandId> {
    journal.list().iter().map(|entry| entry.message.id).collect()
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}

#[tokio::test]
async fn what_was_written_down_is_there_after_a_crash_with_all_that_is_needed_to_send_it() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("journal"), folder.path().join("copy"));
    let journal = open(&path).await;
    let full = Arc::new(Message {
        id: CommandId::derived("order", "4711"),
        target: targets().of("order.place").unwrap(),
        version: 3,
        key: Some(Key::new("alice").unwrap()),
        body: Bytes::from_static(b"{\"article\": \"lamp\"}"),
        terms: crate::outbox::terms::Terms {
            expires_at_ms: Some(8),
            not_before_ms: Some(7),
            context: Some("{\"tenant\":\"acme\"}".into()),
        },
        reply: Some("farwrite.shop.reply.jfk.x".into()),
        has_ended: AtomicBool::default(),
    });
    let under_way = JournalHold::enter(&journal, &full).await.unwrap();
    let stored = sent(&journal, &message(None, "{}")).await;
    // Killed here: nothing was closed.
    fs::copy(&path, &copy).unwrap();
    drop(under_way);
    drop(journal);
    let journal = open(&copy).await;
    assert_eq!(journal.state().recovered, 2);
    assert_eq!(ids(&journal), [full.id, stored]);
    let listed = journal.list();
    assert!(!listed[0].is_stored && !listed[0].is_under_way);
    let again = &listed[0].message;
    assert_eq!((again.version, &again.key, &again.body), (3, &full.key, &full.body));
    assert_eq!(again.target.subject, full.target.subject);
    assert_eq!(again.reply, None, "nobody listens there any more");
    assert_eq!(format!("{:?}", again.terms), format!("{:?}", full.terms));
    // In order, the first one was not sent, and is not in the original.
    assert_eq!(ids(&*open(&path).await), [stored]);
}

#[cfg(unix)]
#[tokio::test]
async fn nobody_else_may_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    let journal = open(&path).await;
    assert_eq!(mode(), 0o600);
    drop(journal);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let journal = open(&path).await;
    assert_eq!(mode(), 0o600);
    assert!(!format!("{journal:?}").contains("lamp"));
}

#[tokio::test]
async fn what_has_ended_is_gone_and_what_it_has_overtaken_stays_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let journal = open(&path).await;
    let first = sent(&journal, &message(Some("k"), "1")).await;
    let second = sent(&journal, &message(Some("k"), "2")).await;
    let third = sent(&journal, &message(Some("k"), "3")).await;
    journal.end(second);
    drop(journal);
    for _ in 0..2 {
        let journal = open(&path).await;
        assert_eq!(ids(&journal), [first, third]);
        let overtaken: Vec<bool> = journal.list().iter().map(|entry| entry.overtaken).collect();
        assert_eq!(overtaken, [true, false]);
        assert!(journal.list().iter().all(|entry| entry.is_stored));
    }
    let journal = open(&path).await;
    assert!(journal.forget(first) && !journal.forget(first));
    drop(journal);
    assert_eq!(ids(&*open(&path).await), [third]);
}

#[tokio::test]
async fn a_torn_tail_is_told_and_costs_nothing_but_itself() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let journal = open(&path).await;
    let first = sent(&journal, &message(None, "1")).await;
    drop(journal);
    let whole = length(&path);
    let journal = open(&path).await;
    sent(&journal, &message(None, "2")).await;
    drop(journal);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..whole as usize + 20]).unwrap();
    let journal = open(&path).await;
    let state = journal.state();
    assert_eq!((ids(&journal), state.torn_bytes, state.damaged_bytes), (vec![first], 20, 0));
    let third = sent(&journal, &message(None, "3")).await;
    drop(journal);
    let journal = open(&path).await;
    assert_eq!((ids(&journal), journal.state().torn_bytes), (vec![first, third], 0));
}

#[tokio::test]
async fn another_producers_file_and_what_is_no_journal_are_left_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let journal = open(&path).await;
    sent(&journal, &message(None, "{}")).await;
    assert!(matches!(open_as(&path, "shop").await, Err(JournalError::InUse { .. })));
    drop(journal);
    let before = fs::read(&path).unwrap();
    let other = open_as(&path, "bank").await;
    let Err(JournalError::OtherOwner { database, origin, .. }) = other else { panic!("{other:?}") };
    assert_eq!((&*database, &*origin), ("shop", "jfk"));

    // A record of a version to come.
    let mut later = before.clone();
    let head = record::Head::Gone { id: CommandId::now(), ended: true };
    let start = later.len();
    record::append(&mut later, &head, &[]);
    let place = later.windows(4).rposition(|window| window == b"gone").unwrap();
    later[place..place + 4].copy_from_slice(b"new!");
    let crc = crc32fast::hash(&later[start + 12..]).to_le_bytes();
    later[start + 8..start + 12].copy_from_slice(&crc);
    for (bytes, is_journal) in [(&later[..], true), (b"name = \"my config\"", false)] {
        fs::write(&path, bytes).unwrap();
        match open_as(&path, "shop").await {
            Err(JournalError::Unreadable { .. }) => assert!(is_journal),
            Err(JournalError::NotAJournal { .. }) => assert!(!is_journal),
            other => panic!("{other:?}"),
        }
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
    let nowhere = folder.path().join("no/such/folder/journal");
    assert!(matches!(open_as(&nowhere, "shop").await, Err(JournalError::Io { .. })));
}

#[tokio::test]
async fn a_file_that_is_mostly_dead_is_written_anew_while_it_is_in_use() {
    const BODY: &str = concat!("\"", include_str!("book.rs"), "\"");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let journal = open(&path).await;
    let kept = sent(&journal, &message(Some("k"), BODY)).await;
    let mut written = 0;
    let mut longest = 0;
    while written < 8 << 20 {
        let id = sent(&journal, &message(None, BODY)).await;
        journal.end(id);
        written += BODY.len() as u64;
        longest = longest.max(length(&path));
    }
    assert!(longest < 3 << 20, "{longest} bytes of {written}");
    assert!(longest > 1 << 20, "not every time: {longest}");
    let last = sent(&journal, &message(Some("k"), "{}")).await;
    drop(journal);
    let journal = open(&path).await;
    assert_eq!(ids(&journal), [kept, last]);
    assert_eq!(journal.list()[0].message.body, BODY.as_bytes());
}

#[tokio::test]
async fn however_it_is_synced_it_is_written_before_it_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    for (name, sync) in
        [("soon", FileSync::Every(std::time::Duration::ZERO)), ("before", FileSync::BeforePublish)]
    {
        let path = folder.path().join(name);
        let subjects = Subjects::new(DatabaseName::new("shop").unwrap());
        let journal = Journal::file(&path, JournalLimits::default()).sync(sync);
        let origin = Origin::new("jfk").unwrap();
        let journal = Arc::new(Keeping::open(journal, &subjects, &origin).await.unwrap());
        let message = message(None, "{}");
        let kept = JournalHold::enter(&journal, &message).await.unwrap();
        let bytes = fs::read(&path).unwrap();
        let id = message.id.to_string();
        assert!(bytes.windows(id.len()).any(|window| window == id.as_bytes()), "{sync:?}");
        kept.in_doubt();
    }
}
