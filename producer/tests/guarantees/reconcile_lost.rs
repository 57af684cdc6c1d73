//! What a stream acknowledged and then lost is found out and sent again: applied once, in order.
//!
//! Each test has a stack of its own, whose nats-server is stopped and given back an older copy of
//! its store. The producer has a region's permissions and no more.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use farwrite_devstack::Devstack;
use farwrite_producer::{
    Builder, CommandId, Journal, JournalLimits, Pending, Producer, ReconcileOptions,
    ReconcileReport,
};

use crate::stage::{LONG, Stage, Worker, raw, within};

/// A region's credentials: its own commands, the worker's service, its own inbox.
const NATS: &str = r#"
authorization { users: [
    { user: app, password: app }
    { user: region, password: region, permissions: {
        publish: ["farwrite.*.cmd.jfk.>", "farwrite.*.outcome", "farwrite.*.lag"]
        subscribe: ["farwrite.*.reply.jfk.>"] } }
] }
no_auth_user: app
"#;

const KEYS: usize = 5;

/// A stack that may lose something. It ends with the test's process.
async fn stack() -> &'static Devstack {
    let stack = Devstack::builder().regions(["ewr"]).nats_config(NATS).start().await.unwrap();
    Box::leak(Box::new(stack))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Copies the store of a server that is stopped meanwhile.
async fn keep_copy(stack: &Devstack) -> PathBuf {
    let kept = stack.folder().unwrap().join("kept");
    stack.nats().stop().await.unwrap();
    copy(&stack.nats().store(), &kept);
    stack.nats().start().await.unwrap();
    kept
}

/// Gives the server its older store back.
async fn put_back(stack: &Devstack, kept: &Path) {
    stack.nats().stop().await.unwrap();
    fs::remove_dir_all(stack.nats().store()).unwrap();
    copy(kept, &stack.nats().store());
    stack.nats().start().await.unwrap();
}

fn builder(stage: &Stage) -> Builder {
    stage.hasty().nats_url(stage.url_as("region"))
}

/// Publishes these numbers, one after another, over the keys in turn.
async fn publish(producer: &Producer, numbers: std::ops::Range<usize>) -> Vec<CommandId> {
    let mut ids = Vec::new();
    for n in numbers {
        let key = format!("k{}", n % KEYS);
        let call = producer.call_raw(raw("see", Some(&key), &format!("{{\"n\": {n}}}")));
        let accepted = within(call.timeout(LONG).publish()).await.unwrap();
        assert!(!accepted.duplicate);
        ids.push(accepted.id);
    }
    ids
}

/// Reconciles until nothing is left in the journal, and adds up what was done.
async fn reconcile(producer: &Producer) -> ReconcileReport {
    let options = ReconcileOptions::default()
        .min_age(std::time::Duration::ZERO)
        .timeout(std::time::Duration::from_secs(5));
    let mut sum = ReconcileReport::default();
    within(async {
        while producer.journal().unwrap().commands > 0 {
            let report = producer.reconcile(options.clone()).await.unwrap();
            assert!(report.unsent.is_empty() && report.too_old.is_empty(), "{report:?}");
            sum.applied += report.applied;
            sum.sent_again.extend(report.sent_again);
            sum.duplicates.extend(report.duplicates);
            // What is too young to be lost becomes older.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    })
    .await;
    sum
}

/// What was applied, in order, by key.
async fn applied(worker: &Worker<'_>, stage: &Stage) -> BTreeMap<usize, Vec<usize>> {
    let mut primary = stage.stack.primary().connect(worker.database()).await.unwrap();
    let rows: Vec<(i32,)> =
        sqlx::query_as("SELECT n FROM seen ORDER BY place").fetch_all(&mut primary).await.unwrap();
    let mut keys: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (n,) in rows {
        let n = usize::try_from(n).unwrap();
        keys.entry(n % KEYS).or_default().push(n);
    }
    keys
}

fn in_order(numbers: std::ops::Range<usize>) -> BTreeMap<usize, Vec<usize>> {
    (0..KEYS).map(|key| (key, numbers.clone().filter(|n| n % KEYS == key).collect())).collect()
}

#[tokio::test]
async fn a_lost_tail_is_sent_again_and_all_is_applied_once_in_order() {
    let stack = stack().await;
    let stage = Stage::on(stack, "tail").await;
    let worker = Worker::prepare(&stage).await;
    let working = worker.begin().await;
    let journal = Journal::in_memory(JournalLimits::default());
    let producer = builder(&stage).journal(journal).connect().await.unwrap();
    publish(&producer, 0..20).await;
    let before = reconcile(&producer).await;
    assert_eq!((before.applied, before.sent_again.len()), (20, 0));
    assert!(working.terminate(LONG).await.unwrap().success());

    let kept = keep_copy(stack).await;
    let ids = publish(&producer, 20..50).await;
    put_back(stack, &kept).await;
    let _working = worker.begin().await;
    let report = reconcile(&producer).await;
    assert_eq!(report.sent_again.len(), 30, "{report:?}");
    let sent: BTreeSet<CommandId> = report.sent_again.iter().copied().collect();
    assert_eq!(sent, ids.into_iter().collect());
    assert_eq!(report.applied, 30);
    assert!(report.duplicates.is_empty(), "{report:?}");
    assert_eq!(applied(&worker, &stage).await, in_order(0..50));
    assert_eq!(producer.pending(), Pending::default());
}

#[tokio::test]
async fn after_a_crash_the_file_knows_what_was_sent_whatever_the_stream_kept() {
    let stack = stack().await;
    let stage = Stage::on(stack, "crash").await;
    let worker = Worker::prepare(&stage).await;
    let (path, crashed) =
        (stack.folder().unwrap().join("journal"), stack.folder().unwrap().join("crashed"));
    let file = |path: &Path| Journal::file(path, JournalLimits::default());
    let producer = builder(&stage).journal(file(&path)).connect().await.unwrap();
    // The stream keeps 10 of them; the worker has seen none.
    publish(&producer, 0..10).await;
    let kept = keep_copy(stack).await;
    publish(&producer, 10..50).await;
    // The process ends here, without a word.
    fs::copy(&path, &crashed).unwrap();
    drop(producer);
    put_back(stack, &kept).await;
    let producer = builder(&stage).journal(file(&crashed)).connect().await.unwrap();
    assert_eq!(producer.journal().unwrap().recovered, 50);
    let _working = worker.begin().await;
    let report = reconcile(&producer).await;
    assert_eq!((report.sent_again.len(), report.applied), (40, 50), "{report:?}");
    assert_eq!(applied(&worker, &stage).await, in_order(0..50));
    // And it has nothing left to tell after another restart.
    drop(producer);
    let producer = builder(&stage).journal(file(&crashed)).connect().await.unwrap();
    assert_eq!(producer.journal().unwrap().recovered, 0);
}
