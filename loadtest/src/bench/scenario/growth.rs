//! What grows: the ledger, and the backlog.

use anyhow::Result;
use farwrite_devstack::Devstack;

use super::{
    drain::{Load, drain},
    settings::{BenchSettings, SMALL, ScenarioFindings},
};
use crate::bench::{
    measure::{BenchTarget, Samples, against, held, row},
    stage::BenchStage,
};

/// Five million outcomes of the last six days, as a worker would have left them.
const LEDGER: &str = "
    SELECT farwrite.make_ledger_days(now() - interval '6 days', now());
    INSERT INTO farwrite.ledger (command_id, outcome, answer, fingerprint, stream_id, sequence)
    SELECT overlay(farwrite.first_id_at(now() - interval '6 days' + n * interval '100 milliseconds')::text
                   placing substr(gen_random_uuid()::text, 21) from 21)::uuid,
           'applied', '1', gen_random_uuid(), 1, 0
    FROM generate_series(1, 5000000) AS n;
    ANALYZE farwrite.ledger;
    CHECKPOINT;";
const BACKLOG: u64 = 1_000_000;
/// Flat: a worker takes no more for any backlog.
const MEMORY_MB: f64 = 120.0;

pub(super) async fn run(settings: &BenchSettings) -> Result<ScenarioFindings> {
    let stage = BenchStage::set(Devstack::builder()).await?;
    for database in ["young", "old"] {
        stage.database(database).await?;
    }
    stage.primary().execute("old", LEDGER).await?;
    let load = |database| Load::puts(database, settings.commands / 4, SMALL);
    let (mut young, mut old) = (Samples::default(), Samples::default());
    for database in ["young", "old"] {
        drain(&stage, load(database)).await?;
    }
    for round in settings.rounds() {
        // The first of two drains has the quieter server.
        let turns = [("young", &mut young), ("old", &mut old)];
        let mut turns: Vec<_> = turns.into_iter().collect();
        if round % 2 == 1 {
            turns.reverse();
        }
        for (database, samples) in turns {
            samples.push(drain(&stage, load(database)).await?.per_second);
        }
    }
    let backlog = drain(&stage, Load::puts("young", BACKLOG, SMALL)).await?;
    stage.strike().await?;
    let pace = Samples::whole(backlog.per_second);
    let memory = Samples::whole(backlog.peak_bytes as f64 / 1e6);
    let old_row = row("growth", "drain with 5 million outcomes in the ledger", "/s", &old);
    let pace_row = row("growth", "drain of a backlog of 1 million", "/s", &pace);
    let memory_row = row("growth", "worker's memory at most, backlog of 1 million", "MB", &memory);
    let at_least = |bound| Some(BenchTarget::RatioAtLeast(bound));
    Ok(ScenarioFindings {
        rows: vec![
            against(old_row, &old, "empty ledger", &young, at_least(0.9)),
            against(pace_row, &pace, "smaller backlog", &young, None),
            held(memory_row, &memory, BenchTarget::AtMost(MEMORY_MB)),
        ],
        ..ScenarioFindings::default()
    })
}
