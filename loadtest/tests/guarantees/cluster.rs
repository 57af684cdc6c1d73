//! The broker is a cluster of three nodes, with a replica of the command stream on each. Nodes
//! fail: the leader, most of them, or one that stands still and comes back. What was acknowledged
//! is applied once and in order, what was said not to be accepted is not, and the worker goes on by
//! itself.
//!
//! Each test has a stack of its own, one at a time: an election on a busy machine takes long enough.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use farwrite_devstack::{Devstack, NatsServer, Program};
use farwrite_producer::{Known, Limits, Producer, PublishError, ReadsFrom, SubmitError};
use futures_util::future::try_join_all;
use tokio::sync::{Mutex, MutexGuard};

use crate::support::{Append, Case, DEADLINE, Message};

static TURN: Mutex<()> = Mutex::const_new(());

/// Keys that are written to at once: every other one by `publish`, the others by `submit`.
const KEYS: usize = 6;
/// Commands of each key that must be accepted after a fault for it to be over.
const ENOUGH: usize = 20;
/// Between two commands of a key, so that a test is not about throughput.
const PACE: Duration = Duration::from_millis(5);

/// A case on a stack of its own, its command stream on all three nodes. The reaper ends the stack
/// with this process.
async fn three(test: &str) -> Result<(MutexGuard<'static, ()>, Case)> {
    let turn = TURN.lock().await;
    let stack = Devstack::builder().nats_nodes(3).start().await?;
    let stack: &'static Devstack = Box::leak(Box::new(stack));
    Ok((turn, Case::on(stack, test, &["--stream-replicas", "3"]).await?))
}

/// The node that leads the command stream.
async fn leader(case: &Case) -> Result<usize> {
    case.stack.stream_leader(&format!("farwrite-{}", case.name)).await
}

async fn other_nodes(case: &Case) -> Result<Vec<&'static NatsServer>> {
    let leader = leader(case).await?;
    let nodes = case.stack.nats_nodes().iter().enumerate();
    Ok(nodes.filter(|(index, _)| *index != leader).map(|(_, node)| node).collect())
}

/// What the producer said about the commands of a key, by their numbers.
#[derive(Debug, Default)]
struct Told {
    accepted: Vec<i32>,
    maybe: Vec<i32>,
    not: Vec<i32>,
}

/// A producer that writes to several keys until it is told to stop, and what it was told.
struct Writer {
    producer: Producer,
    told: RefCell<BTreeMap<String, Told>>,
    stopped: Cell<bool>,
}

impl Writer {
    async fn new(case: &Case, timeout: Duration) -> Result<Self> {
        let builder = Producer::builder(case.name.parse()?, "home".parse()?);
        let builder = builder
            .nats_url(case.stack.nats_urls())
            .reads(ReadsFrom::primary(case.stack.primary().url(&case.name)))
            .limits(Limits::default().timeout(timeout));
        let told = (0..KEYS).map(|key| (format!("key {key}"), Told::default())).collect();
        let (told, stopped) = (RefCell::new(told), Cell::new(false));
        Ok(Self { producer: builder.connect().await?, told, stopped })
    }

    /// Writes to all keys until it is stopped.
    async fn write(&self) -> Result<()> {
        try_join_all((0..KEYS).map(|key| self.write_key(key))).await.map(drop)
    }

    async fn write_key(&self, number: usize) -> Result<()> {
        let key = format!("key {number}");
        let mut n = 0;
        while !self.stopped.get() {
            let call = self.producer.call(&Append { key: key.clone(), n });
            let known = if number.is_multiple_of(2) {
                known_of(call.publish().await.map(drop).map_err(SubmitError::Publish))?
            } else {
                known_of(call.submit().await.map(drop))?
            };
            if let Some(told) = self.told.borrow_mut().get_mut(&key) {
                match known {
                    None => told.accepted.push(n),
                    Some(Known::MaybeAccepted) => told.maybe.push(n),
                    Some(Known::NotAccepted) => told.not.push(n),
                }
            }
            n += 1;
            tokio::time::sleep(PACE).await;
        }
        Ok(())
    }

    /// The least that a key has of something.
    fn least(&self, count: impl Fn(&Told) -> usize) -> usize {
        self.told.borrow().values().map(count).min().unwrap_or(0)
    }

    /// Waits until more commands of every key are accepted, and those of every other key applied.
    async fn goes_on(&self, case: &Case) -> Result<()> {
        let before: Vec<usize> =
            self.told.borrow().values().map(|told| told.accepted.len()).collect();
        case.until("every key has commands accepted again", async || {
            let told = self.told.borrow();
            let mut pairs = told.values().zip(&before);
            Ok(pairs.all(|(told, before)| told.accepted.len() >= before + ENOUGH))
        })
        .await
    }

    /// Compares what the producer was told with what the database has, and that with the stream.
    async fn check(&self, case: &Case) -> Result<()> {
        case.check_model().await?;
        let effects = case.effects().await?;
        for (key, told) in self.told.borrow().iter() {
            let found = effects.get(key).context("a key without effects")?;
            ensure!(found.is_sorted_by(|a, b| a < b), "{key} is not in order: {found:?}");
            let is_there = |n: &i32| found.binary_search(n).is_ok();
            let lost: Vec<_> = told.accepted.iter().filter(|n| !is_there(n)).collect();
            ensure!(lost.is_empty(), "{key}: {lost:?} were accepted and are lost");
            let denied: Vec<_> = told.not.iter().filter(|n| is_there(n)).collect();
            ensure!(denied.is_empty(), "{key}: {denied:?} were said not to be accepted");
        }
        Ok(())
    }

    /// How many commands of each key were accepted, perhaps accepted and not accepted, and the last.
    fn summary(&self) -> String {
        let told = self.told.borrow();
        let counts = told.iter().map(|(key, Told { accepted, maybe, not })| {
            let last = accepted.last();
            format!("{key}: {} {} {}, {last:?}", accepted.len(), maybe.len(), not.len())
        });
        counts.collect::<Vec<_>>().join("; ")
    }

    /// Whether anything else was told than that a command is accepted.
    fn errors(&self) -> usize {
        self.told.borrow().values().map(|told| told.maybe.len() + told.not.len()).sum()
    }
}

/// What an answer says of a command: `None` when it was accepted.
fn known_of(answer: Result<(), SubmitError>) -> Result<Option<Known>> {
    match answer {
        Ok(()) | Err(SubmitError::TimedOut { .. }) => Ok(None),
        Err(SubmitError::Publish(error)) => match error {
            PublishError::NoConnection { .. }
            | PublishError::TimedOut { .. }
            | PublishError::UnknownStream { .. }
            | PublishError::Refused { .. }
            | PublishError::KeyBlocked { .. } => Ok(Some(error.known())),
            error => Err(error.into()),
        },
        Err(error) => Err(error.into()),
    }
}

/// Looks at the lanes' positions until the writer is stopped: none goes back.
async fn watch_positions(case: &Case, writer: &Writer) -> Result<()> {
    let mut connection = case.primary().await?;
    let mut before = BTreeMap::new();
    while !writer.stopped.get() {
        let sql = "SELECT lane, sequence FROM farwrite.lanes";
        let rows: Vec<(i32, i64)> = sqlx::query_as(sql).fetch_all(&mut connection).await?;
        for (lane, sequence) in rows {
            let before = before.insert(lane, sequence).unwrap_or(0);
            ensure!(sequence >= before, "lane {lane} went back from {before} to {sequence}");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// Lets the writer write while `faults` happen; then everything must be settled, and be as it was
/// told.
async fn endure(
    case: &Case,
    writer: &Writer,
    worker: &Program,
    faults: impl Future<Output = Result<()>>,
) -> Result<()> {
    let faults = async {
        writer.goes_on(case).await.context("before the faults")?;
        faults.await?;
        writer.goes_on(case).await.context("after the faults")?;
        writer.stopped.set(true);
        anyhow::Ok(())
    };
    let endured = tokio::try_join!(writer.write(), watch_positions(case, writer), faults);
    endured.with_context(|| format!("{}\n{}", writer.summary(), worker.log_tail()))?;
    writer.check(case).await
}

/// Waits until the nodes agree again.
async fn agree(case: &Case) -> Result<()> {
    case.stack.wait_nats_current().await
}

fn runs_still(worker: &Program) -> Result<()> {
    match worker.status()? {
        None => Ok(()),
        Some(status) => bail!("the worker ended: {status}\n{}", worker.log_tail()),
    }
}

#[tokio::test]
async fn the_leader_is_killed_and_nothing_that_was_accepted_is_lost() -> Result<()> {
    let (_turn, case) = three("leader_killed").await?;
    let worker = case.serving_worker().await?;
    let writer = Writer::new(&case, DEADLINE).await?;
    let faults = async {
        for _ in 0..2 {
            let killed = leader(&case).await?;
            let node = case.stack.nats_node(killed)?;
            node.kill().await?;
            ensure!(leader(&case).await? != killed);
            writer.goes_on(&case).await.context("while the node is gone")?;
            node.start().await?;
            agree(&case).await?;
        }
        Ok(())
    };
    endure(&case, &writer, &worker, faults).await?;
    // An election is shorter than a call's time: the producer's retries hide it.
    ensure!(writer.errors() == 0, "{:?}", writer.told.borrow());
    runs_still(&worker)
}

#[tokio::test]
async fn the_quorum_is_lost_and_regained_and_nothing_that_was_accepted_is_lost() -> Result<()> {
    let (_turn, case) = three("quorum_lost").await?;
    let worker = case.serving_worker().await?;
    // Shorter than the loss, so that some of it is told.
    let writer = Writer::new(&case, Duration::from_secs(3)).await?;
    let faults = async {
        for with_leader in [true, false] {
            let mut gone = other_nodes(&case).await?;
            if with_leader {
                gone[0] = case.stack.nats_node(leader(&case).await?)?;
            }
            for node in &gone {
                node.kill().await?;
            }
            let errors = |told: &Told| told.maybe.len() + told.not.len();
            let before = writer.least(errors);
            case.until("every key is told of the loss", async || {
                Ok(writer.least(errors) > before + 1)
            })
            .await?;
            for node in &gone {
                node.start().await?;
            }
            agree(&case).await?;
            writer.goes_on(&case).await.context("with a quorum again")?;
        }
        Ok(())
    };
    endure(&case, &writer, &worker, faults).await?;
    runs_still(&worker)
}

#[tokio::test]
async fn a_leader_that_stands_still_in_pulses_loses_and_doubles_nothing() -> Result<()> {
    let (_turn, case) = three("leader_stalls").await?;
    let worker = case.serving_worker().await?;
    let writer = Writer::new(&case, DEADLINE).await?;
    let faults = async {
        for round in 0..6_u32 {
            let stalled = leader(&case).await?;
            let node = case.stack.nats_node(stalled)?;
            node.suspend()?;
            if round.is_multiple_of(3) {
                // Long enough that it wakes up behind its successor.
                ensure!(leader(&case).await? != stalled);
            } else {
                // The pulse itself: too short for an election, long enough for retries to wait.
                tokio::time::sleep(Duration::from_millis(700)).await;
            }
            node.resume()?;
            agree(&case).await?;
            writer.goes_on(&case).await.with_context(|| format!("after pulse {round}"))?;
        }
        Ok(())
    };
    endure(&case, &writer, &worker, faults).await?;
    runs_still(&worker)
}

#[tokio::test]
async fn a_worker_that_begins_during_an_election_takes_the_stream_for_no_other() -> Result<()> {
    let (_turn, case) = three("begins_anew").await?;
    let mut worker = case.serving_worker().await?;
    for n in 0..3 {
        case.publish(&Message::append("a", 2 * n)).await?;
        case.settled().await?;
        ensure!(worker.terminate(DEADLINE).await?.success());
        let node = case.stack.nats_node(leader(&case).await?)?;
        node.kill().await?;
        worker = case.serving_worker().await?;
        node.start().await?;
        agree(&case).await?;
        case.publish(&Message::append("a", 2 * n + 1)).await?;
        case.check_model().await?;
    }
    runs_still(&worker)
}
