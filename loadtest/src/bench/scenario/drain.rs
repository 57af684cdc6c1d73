//! A stream that was filled before is applied until it is empty.
//!
//! The clock runs from the last look at which nothing was applied to the first at which everything
//! was. The start of the program is not in that time. After each drain the database says that every
//! command that was not refused is there once.

use std::time::Duration;

use anyhow::{Result, ensure};
use async_nats::{Subject, jetstream};
use tokio::time::Instant;

use crate::bench::{
    baseline::subject,
    fill::{Filling, fill},
    put::Puts,
    stage::{Applier, BenchStage, PATIENCE},
};

/// Shortest and longest time between two looks at the worker's progress. For each look the worker
/// writes all its metrics. Every 20 ms that was a twentieth of its work, and every 50 ms a
/// fiftieth.
const LOOK_EVERY: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

/// When to look again: often before the start and near the end, for these two moments are timed.
fn next_look(settled: u64, commands: u64, took: Duration) -> Duration {
    let left = took.mul_f64(commands.saturating_sub(settled) as f64 / settled.max(1) as f64);
    if settled == 0 { LOOK_EVERY.0 } else { (left / 2).min(took).clamp(LOOK_EVERY.0, LOOK_EVERY.1) }
}

/// What commands are called.
#[derive(Clone, Copy)]
pub(super) enum CommandNames {
    /// All the same.
    One(&'static str),
    /// `item.put_1` and so on, so many, in turn.
    Numbered(u64),
}

impl CommandNames {
    fn subjects(self, database: &str) -> Result<Vec<Subject>> {
        match self {
            Self::One(name) => Ok(vec![subject(database, name)?]),
            Self::Numbered(many) => {
                (1..=many).map(|number| subject(database, &format!("item.put_{number}"))).collect()
            }
        }
    }
}

/// What lies in the stream.
#[derive(Clone, Copy)]
pub(super) struct Load {
    pub(super) database: &'static str,
    pub(super) applier: Applier,
    pub(super) commands: u64,
    pub(super) body_bytes: usize,
    /// What the commands are called.
    pub(super) names: CommandNames,
    /// Of a hundred commands, so many are refused.
    pub(super) refused_percent: u32,
}

impl Load {
    pub(super) const fn puts(database: &'static str, commands: u64, body_bytes: usize) -> Self {
        Self {
            database,
            applier: Applier::Functions,
            commands,
            body_bytes,
            names: CommandNames::One("item.put"),
            refused_percent: 0,
        }
    }
}

/// How a drain went.
pub(super) struct Drained {
    pub(super) per_second: f64,
    /// The most memory that the worker had in use.
    pub(super) peak_bytes: u64,
}

/// Fills the stream of a database, and has a worker apply it.
pub(super) async fn drain(stage: &BenchStage, load: Load) -> Result<Drained> {
    let context = jetstream::new(async_nats::connect(stage.stack.nats().url()).await?);
    let subjects = load.names.subjects(load.database)?;
    let (mut puts, mut refused) = (Puts::of(load.body_bytes), 0);
    let messages = (0..load.commands).map(|number| {
        let is_refused = puts.chance(load.refused_percent);
        refused += u64::from(is_refused);
        let put = if is_refused { puts.refused() } else { puts.next() };
        let turn = usize::try_from(number).unwrap_or_default() % subjects.len();
        Filling { subject: subjects[turn].clone(), body: put.body(), key: Some(put.key) }
    });
    fill(&context, messages).await?;
    let before = stage.puts(load.database).await?;
    let worker = stage.worker(load.applier, load.database)?;
    worker.tells().await?;
    let began = Instant::now();
    let mut nothing_at = Instant::now();
    let took = loop {
        let now = Instant::now();
        let settled = worker.settled().await?;
        if settled == 0 {
            nothing_at = now;
        }
        if settled >= load.commands {
            break nothing_at.elapsed();
        }
        worker.check()?;
        ensure!(
            began.elapsed() < PATIENCE,
            "{settled} of {} after {} s\n{}",
            load.commands,
            PATIENCE.as_secs(),
            worker.log()
        );
        tokio::time::sleep(next_look(settled, load.commands, nothing_at.elapsed())).await;
    };
    let peak_bytes = worker.peak_bytes()?;
    worker.stop().await?;
    let applied = stage.puts(load.database).await? - before;
    let expected = load.commands - refused;
    ensure!(applied == expected, "{applied} commands are in the database, not {expected}");
    Ok(Drained { per_second: load.commands as f64 / took.as_secs_f64(), peak_bytes })
}
