//! A stream that was filled before is applied until it is empty.
//!
//! The clock runs from the last look at which nothing was applied to the first at which everything
//! was. The start of the program is not in that time. After each drain the database says that every
//! command that was not refused is there once.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_nats::{Subject, jetstream};
use farwrite_devstack::Devstack;
use farwrite_primary_worker::Config;
use tokio::time::Instant;

use super::settings::{BODY_BYTES, BenchSettings, SMALL, ScenarioFindings};
use crate::bench::{
    baseline::{Direct, FromStream, OneByOne, Transaction, commands_for, subject},
    fill::{Filling, fill},
    measure::{BenchTarget, Samples, against, row},
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

/// The contestants: they empty a stream, or do the same work without a stream.
#[derive(Clone, Copy)]
enum Contestant {
    Farwrite,
    /// The one with this index of the connections.
    Direct(usize),
    Batched,
    FromStream,
    OneByOne,
}

/// Functions of the database, beside connections to the primary and the consumer of an afternoon.
pub(super) async fn functions(settings: &BenchSettings) -> Result<ScenarioFindings> {
    const CONNECTIONS: [u32; 3] = [1, 8, 32];
    let mut findings = ScenarioFindings::default();
    for body_bytes in BODY_BYTES {
        let stage = BenchStage::set(Devstack::builder()).await?;
        stage.database("bench").await?;
        let mut one_by_one = OneByOne::set(&stage.stack, "bench", 32, body_bytes).await?;
        let connect = async |connections, transaction| {
            Direct::connect(stage.primary(), "bench", connections, body_bytes, transaction).await
        };
        let mut direct = Vec::new();
        for connections in CONNECTIONS {
            direct.push(connect(connections, Transaction::Upsert).await?);
        }
        let mut batched = connect(Config::LANES, Transaction::Batch).await?;
        let mut from_stream = FromStream::set(&stage.stack, "bench", body_bytes).await?;
        let [mut ours, mut bare, mut limit] = [const { Samples::new() }; 3];
        let (mut theirs, mut queue) = ([const { Samples::new() }; 3], Samples::default());
        let load = Load::puts("bench", settings.commands, body_bytes);
        let mut contestants = vec![
            Contestant::Farwrite,
            Contestant::OneByOne,
            Contestant::Batched,
            Contestant::FromStream,
        ];
        contestants.extend((0..CONNECTIONS.len()).map(Contestant::Direct));
        // The first drain meets empty tables, which no other does.
        drain(&stage, Load { commands: settings.commands / 4, ..load }).await?;
        let mut random = fastrand::Rng::new();
        for _ in settings.rounds() {
            // What one contestant leaves behind (a checkpoint, rows to vacuum) meets each of the
            // others.
            random.shuffle(&mut contestants);
            for contestant in &contestants {
                match *contestant {
                    Contestant::Farwrite => ours.push(drain(&stage, load).await?.per_second),
                    Contestant::Direct(index) => {
                        let rate = direct[index].run(settings.turn() / 2).await?;
                        theirs[index].push(rate);
                    }
                    Contestant::Batched => bare.push(batched.run(settings.turn() / 2).await?),
                    Contestant::FromStream => limit.push(from_stream.run(load.commands).await?),
                    Contestant::OneByOne => {
                        queue.push(one_by_one.run(commands_for(settings.turn())).await?);
                    }
                }
            }
        }
        stage.strike().await?;
        let measure = format!("commands applied, {body_bytes} B");
        let row = |measure: &str, ours: &Samples| row("drain", measure, "/s", ours);
        let targets = [None, None, Some(BenchTarget::RatioAtLeast(2.0))];
        for ((connections, theirs), target) in CONNECTIONS.iter().zip(&theirs).zip(targets) {
            let baseline = format!("direct, {connections}");
            findings.rows.push(against(row(&measure, &ours), &ours, &baseline, theirs, target));
        }
        // No target: the rows show what Farwrite's promises cost, with and without the stream.
        for (baseline, theirs) in [("bare batches", &bare), ("bare batches from a stream", &limit)]
        {
            findings.rows.push(against(row(&measure, &ours), &ours, baseline, theirs, None));
        }
        let seven = Some(BenchTarget::RatioAtLeast(7.0));
        let beside_queue = row(&measure, &ours);
        findings.rows.push(against(beside_queue, &ours, "one-by-one queue", &queue, seven));
    }
    Ok(findings)
}

/// A handler in Rust of one statement.
pub(super) async fn rust(settings: &BenchSettings) -> Result<ScenarioFindings> {
    let stage = BenchStage::set(Devstack::builder()).await?;
    stage.database("bench").await?;
    let mut one_by_one = OneByOne::set(&stage.stack, "bench", 32, SMALL).await?;
    let load = Load {
        applier: Applier::Rust,
        names: CommandNames::One("item.put_in_rust"),
        ..Load::puts("bench", settings.commands / 4, SMALL)
    };
    let (mut ours, mut theirs) = (Samples::default(), Samples::default());
    drain(&stage, Load { commands: load.commands / 2, ..load }).await?;
    let mut random = fastrand::Rng::new();
    for _ in settings.rounds() {
        let mut turns = [Contestant::Farwrite, Contestant::OneByOne];
        random.shuffle(&mut turns);
        for contestant in turns {
            if matches!(contestant, Contestant::Farwrite) {
                ours.push(drain(&stage, load).await?.per_second);
            } else {
                theirs.push(one_by_one.run(commands_for(settings.turn())).await?);
            }
        }
    }
    stage.strike().await?;
    let row = row("drain-rust", format!("commands applied, {SMALL} B"), "/s", &ours);
    let target = Some(BenchTarget::RatioAtLeast(2.5));
    let row = against(row, &ours, "one-by-one queue", &theirs, target);
    Ok(ScenarioFindings { rows: vec![row], ..ScenarioFindings::default() })
}

/// Loads that take turns; the others are compared with the first.
async fn compare<const N: usize>(
    settings: &BenchSettings,
    loads: [Load; N],
) -> Result<[Samples; N]> {
    let stage = BenchStage::set(Devstack::builder()).await?;
    stage.database("bench").await?;
    let mut samples = [const { Samples::new() }; N];
    let first = loads.first().context("nothing to compare")?;
    drain(&stage, *first).await?;
    for _ in settings.rounds() {
        for (load, samples) in loads.iter().zip(&mut samples) {
            samples.push(drain(&stage, *load).await?.per_second);
        }
    }
    stage.strike().await?;
    Ok(samples)
}

/// Commands that the database refuses.
pub(super) async fn rejects(settings: &BenchSettings) -> Result<ScenarioFindings> {
    let clean = Load::puts("bench", settings.commands / 4, SMALL);
    let parts = [(1, 0.6), (10, 0.5), (50, 0.5)];
    let refused = parts.map(|(percent, _)| Load { refused_percent: percent, ..clean });
    let [clean, one, ten, fifty] =
        compare(settings, [clean, refused[0], refused[1], refused[2]]).await?;
    let rows = parts.iter().zip([one, ten, fifty]).map(|((percent, bound), samples)| {
        let row = row("rejects", format!("{percent} % rejected"), "/s", &samples);
        against(row, &samples, "clean drain", &clean, Some(BenchTarget::RatioAtLeast(*bound)))
    });
    Ok(ScenarioFindings { rows: rows.collect(), ..ScenarioFindings::default() })
}

/// Twenty names in one stream.
pub(super) async fn many_handlers(settings: &BenchSettings) -> Result<ScenarioFindings> {
    let one = Load::puts("bench", settings.commands / 4, SMALL);
    let [one, many] =
        compare(settings, [one, Load { names: CommandNames::Numbered(20), ..one }]).await?;
    let row = row("many-handlers", "20 names in one stream", "/s", &many);
    let row = against(row, &many, "one name", &one, Some(BenchTarget::RatioAtLeast(0.8)));
    Ok(ScenarioFindings { rows: vec![row], ..ScenarioFindings::default() })
}
