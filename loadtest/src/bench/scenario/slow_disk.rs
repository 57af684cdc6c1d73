//! A disk whose fdatasync takes a millisecond longer, as disks in a cloud do.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use farwrite_devstack::Devstack;

use super::{
    drain::{Load, drain},
    settings::{BenchSettings, SMALL, ScenarioFindings},
};
use crate::bench::{
    baseline::{Direct, Transaction},
    measure::{BenchTarget, Samples, against, row},
    stage::BenchStage,
};

/// Makes the library that delays, in a folder that PostgreSQL's account may read.
fn library(folder: &Path) -> Result<std::path::PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))?;
    let (source, library) = (folder.join("slow_fdatasync.rs"), folder.join("slow_fdatasync.so"));
    std::fs::write(&source, include_str!("../../../bench/slow_fdatasync.rs"))?;
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition", "2024", "-O", "--crate-type", "cdylib", "-o"]).arg(&library);
    let output = rustc.arg(&source).output().context("rustc, which compiles the slow disk")?;
    ensure!(output.status.success(), "rustc: {}", String::from_utf8_lossy(&output.stderr));
    Ok(library)
}

pub(super) async fn run(settings: &BenchSettings) -> Result<ScenarioFindings> {
    let folder = tempfile::tempdir()?;
    let library = library(folder.path())?;
    let builder = Devstack::builder().environment("LD_PRELOAD", library.display().to_string());
    let stage = BenchStage::set(builder).await?;
    stage.database("bench").await?;
    let mut direct =
        Direct::connect(stage.primary(), "bench", 32, SMALL, Transaction::Upsert).await?;
    let mut one = Direct::connect(stage.primary(), "bench", 1, SMALL, Transaction::Upsert).await?;
    let load = Load::puts("bench", settings.commands / 4, SMALL);
    let (mut ours, mut theirs) = (Samples::default(), Samples::default());
    let mut alone = Samples::default();
    drain(&stage, load).await?;
    for _ in settings.rounds() {
        ours.push(drain(&stage, load).await?.per_second);
        theirs.push(direct.run(settings.turn()).await?);
        alone.push(one.run(settings.turn()).await?);
    }
    stage.strike().await?;
    // Without the delay one connection would make thousands of commits.
    ensure!(alone.median() < 1_000.0, "the disk was not slow: {} commits/s", alone.median());
    let row_of = || row("slow-disk", format!("commands applied, {SMALL} B"), "/s", &ours);
    let three = Some(BenchTarget::RatioAtLeast(3.0));
    Ok(ScenarioFindings {
        rows: vec![
            against(row_of(), &ours, "direct, 32", &theirs, three),
            against(row_of(), &ours, "direct, 1", &alone, None),
        ],
        ..ScenarioFindings::default()
    })
}
