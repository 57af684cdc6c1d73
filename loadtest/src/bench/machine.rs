//! What the machine and the programs say of themselves.

use std::{collections::BTreeMap, io::Write, os::unix::fs::FileExt, time::Instant};

use anyhow::{Context, Result};
use farwrite_devstack::Devstack;
use sqlx::PgConnection;

use super::{measure::Samples, report::Machine};

/// Looks at the machine.
pub(super) fn look() -> Result<Machine> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let value = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let memory = value(&read("/proc/meminfo"), "MemTotal");
    let kilobytes = memory.and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
    Ok(Machine {
        cpu: value(&read("/proc/cpuinfo"), "model name").unwrap_or_default(),
        cores: std::thread::available_parallelism()?.get(),
        memory_bytes: kilobytes.unwrap_or_default() * 1_024,
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        fdatasync_us: fdatasync_us()?,
    })
}

/// A write of 8 kB and its fdatasync where the servers' folders are made, as PostgreSQL's log does it.
fn fdatasync_us() -> Result<f64> {
    const TIMES: u64 = 200;
    const PAGE: [u8; 8_192] = [7; 8_192];
    let mut file = tempfile::tempfile().context("a file to sync")?;
    for _ in 0..TIMES {
        file.write_all(&PAGE)?;
    }
    file.sync_all()?;
    let mut took = Samples::default();
    for page in 0..TIMES {
        let began = Instant::now();
        file.write_all_at(&PAGE, page * 8_192)?;
        file.sync_data()?;
        took.push(began.elapsed().as_secs_f64() * 1e6);
    }
    Ok(took.median())
}

/// Asks the servers for their versions, and PostgreSQL for what it promises.
pub(super) async fn ask(
    stack: &Devstack,
) -> Result<(BTreeMap<String, String>, BTreeMap<String, String>)> {
    let mut connection = stack.primary().connect("postgres").await?;
    let nats = async_nats::connect(stack.nats().url()).await?;
    let mut versions = BTreeMap::new();
    let mut note = |name: &str, version: String| versions.insert(name.to_owned(), version);
    note("farwrite", env!("CARGO_PKG_VERSION").to_owned());
    note("PostgreSQL", setting(&mut connection, "server_version").await?);
    note("nats-server", nats.server_info().version);
    let mut settings = BTreeMap::new();
    for name in ["fsync", "synchronous_commit", "wal_sync_method", "shared_buffers", "jit"] {
        settings.insert(name.to_owned(), setting(&mut connection, name).await?);
    }
    Ok((versions, settings))
}

async fn setting(connection: &mut PgConnection, name: &str) -> Result<String> {
    let value = sqlx::query_scalar("SELECT current_setting($1)").bind(name);
    value.fetch_one(connection).await.with_context(|| name.to_owned())
}
