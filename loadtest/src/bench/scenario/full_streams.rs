//! Full streams that Farwrite applies, beside other ways to do the same work.

use anyhow::{Context, Result};
use farwrite_devstack::Devstack;
use farwrite_primary_worker::Config;

use super::{
    drain::{CommandNames, Load, drain},
    settings::{BODY_BYTES, BenchSettings, SMALL, ScenarioFindings},
};
use crate::bench::{
    baseline::{Direct, FromStream, OneByOne, Transaction, commands_for},
    measure::{BenchTarget, Samples, against, row},
    report::BenchRow,
    stage::{Applier, BenchStage},
};

/// What Farwrite is compared with.
enum BaselineWork {
    /// Connections to the primary.
    Direct(Direct),
    /// A stream of its own, of so many commands.
    FromStream(Box<FromStream>, u64),
    /// The consumer of an afternoon.
    OneByOne(Box<OneByOne>),
}

/// One baseline of a scenario, and how it did.
struct Contestant {
    name: String,
    target: Option<BenchTarget>,
    work: BaselineWork,
    samples: Samples,
}

impl Contestant {
    fn new(name: impl Into<String>, target: Option<f64>, work: BaselineWork) -> Self {
        let target = target.map(BenchTarget::RatioAtLeast);
        Self { name: name.into(), target, work, samples: Samples::new() }
    }

    async fn run(&mut self, settings: &BenchSettings) -> Result<()> {
        self.samples.push(match &mut self.work {
            BaselineWork::Direct(direct) => direct.run(settings.turn() / 2).await?,
            BaselineWork::FromStream(from_stream, commands) => from_stream.run(*commands).await?,
            BaselineWork::OneByOne(consumer) => consumer.run(commands_for(settings.turn())).await?,
        });
        Ok(())
    }
}

/// Drains a stream in turns with all contestants: a row for each of them.
async fn compete(
    stage: &BenchStage,
    settings: &BenchSettings,
    scenario: &str,
    load: Load,
    mut contestants: Vec<Contestant>,
) -> Result<Vec<BenchRow>> {
    let mut ours = Samples::new();
    // The contestant of a turn; none is Farwrite.
    let mut turns: Vec<_> = (0..contestants.len()).map(Some).chain([None]).collect();
    let mut random = fastrand::Rng::new();
    for _ in settings.rounds() {
        // What one contestant leaves behind (a checkpoint, rows to vacuum) meets each of the others.
        random.shuffle(&mut turns);
        for turn in &turns {
            match turn {
                Some(index) => contestants[*index].run(settings).await?,
                None => ours.push(drain(stage, load).await?.per_second),
            }
        }
    }
    let measure = format!("commands applied, {} B", load.body_bytes);
    let rows = contestants.iter().map(|Contestant { name, target, samples, .. }| {
        against(row(scenario, &*measure, "/s", &ours), &ours, name, samples, *target)
    });
    Ok(rows.collect())
}

/// Functions of the database, beside connections to the primary and the consumer of an afternoon.
pub(super) async fn functions(settings: &BenchSettings) -> Result<ScenarioFindings> {
    let mut findings = ScenarioFindings::default();
    for body_bytes in BODY_BYTES {
        let stage = BenchStage::set(Devstack::builder()).await?;
        stage.database("bench").await?;
        let direct = async |connections, transaction| {
            Direct::connect(stage.primary(), "bench", connections, body_bytes, transaction)
                .await
                .map(BaselineWork::Direct)
        };
        let mut contestants = Vec::new();
        for (connections, target) in [(1, None), (8, None), (32, Some(2.0))] {
            let work = direct(connections, Transaction::Upsert).await?;
            contestants.push(Contestant::new(format!("direct, {connections}"), target, work));
        }
        let batches = direct(Config::LANES, Transaction::Batch).await?;
        let from_stream = FromStream::set(&stage.stack, "bench", body_bytes).await?;
        let from_stream = BaselineWork::FromStream(Box::new(from_stream), settings.commands);
        let one_by_one = OneByOne::set(&stage.stack, "bench", 32, body_bytes).await?;
        contestants.extend([
            // No target: these rows show what Farwrite's promises cost, with and without the stream.
            Contestant::new("bare batches", None, batches),
            Contestant::new("bare batches from a stream", None, from_stream),
            Contestant::new(
                "one-by-one queue",
                Some(7.0),
                BaselineWork::OneByOne(Box::new(one_by_one)),
            ),
        ]);
        let load = Load::puts("bench", settings.commands, body_bytes);
        // The first drain meets empty tables, which no other does.
        drain(&stage, Load { commands: settings.commands / 4, ..load }).await?;
        findings.rows.extend(compete(&stage, settings, "drain", load, contestants).await?);
        stage.strike().await?;
    }
    Ok(findings)
}

/// A handler in Rust of one statement.
pub(super) async fn rust(settings: &BenchSettings) -> Result<ScenarioFindings> {
    let stage = BenchStage::set(Devstack::builder()).await?;
    stage.database("bench").await?;
    let one_by_one = OneByOne::set(&stage.stack, "bench", 32, SMALL).await?;
    let contestant = Contestant::new(
        "one-by-one queue",
        Some(2.5),
        BaselineWork::OneByOne(Box::new(one_by_one)),
    );
    let load = Load {
        applier: Applier::Rust,
        names: CommandNames::One("item.put_in_rust"),
        ..Load::puts("bench", settings.commands / 4, SMALL)
    };
    drain(&stage, Load { commands: load.commands / 2, ..load }).await?;
    let rows = compete(&stage, settings, "drain-rust", load, vec![contestant]).await?;
    stage.strike().await?;
    Ok(ScenarioFindings { rows, ..ScenarioFindings::default() })
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
