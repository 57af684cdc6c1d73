//! Read-your-writes and monotonic reads of users who hop between regions, while servers fail.
//! `loadtest hop` runs the same for hours.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use farwrite_loadtest::hop::{Settings, run};

use crate::support::program;

#[tokio::test]
async fn nobody_who_hops_between_regions_is_shown_less_than_they_have_seen() -> Result<()> {
    let seed = match std::env::var("FARWRITE_SEED") {
        Ok(seed) => seed.parse()?,
        Err(_) => fastrand::u64(..),
    };
    println!("FARWRITE_SEED={seed}");
    let worker = program("primary-worker")?;
    let settings = Settings {
        duration: Duration::from_secs(15),
        users: 12,
        rtt: Duration::from_millis(10),
        disturbed: true,
        programs: worker.parent().context("the worker lies nowhere")?.to_owned(),
        seed,
    };
    let report =
        run(&settings).await.with_context(|| format!("replay with FARWRITE_SEED={seed}"))?;
    println!("{report:?}");
    ensure!(report.is_well() && report.writes > 0, "{report:?}; replay with FARWRITE_SEED={seed}");
    Ok(())
}
