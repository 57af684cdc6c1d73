//! Read-your-writes and monotonic reads of users who hop between regions, while servers fail.
//! `loadtest chaos --schedule hopping` runs the same for hours.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use farwrite_loadtest::chaos::{ChaosSettings, Schedule, run};

#[tokio::test]
async fn nobody_who_hops_between_regions_is_shown_less_than_they_have_seen() -> Result<()> {
    let seed = match std::env::var("FARWRITE_SEED") {
        Ok(seed) => seed.parse()?,
        Err(_) => fastrand::u64(..),
    };
    println!("FARWRITE_SEED={seed}");
    let folder = tempfile::tempdir()?;
    let settings = ChaosSettings {
        seed,
        duration: Duration::from_secs(15),
        clients: 12,
        schedule: Schedule::Hopping,
        faults: None,
        history: folder.path().join("hopping.jsonl"),
    };
    let report =
        run(&settings).await.with_context(|| format!("replay with FARWRITE_SEED={seed}"))?;
    println!("{report:?}");
    let reads = report.judged.counts.reads;
    ensure!(report.is_well() && reads > 0, "{report:?}; replay with FARWRITE_SEED={seed}");
    Ok(())
}
