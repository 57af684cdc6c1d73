//! What the tests share.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use farwrite_devstack::Postgres;

/// How long anything may take that must happen.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !is_so().await? {
        ensure!(began.elapsed() < DEADLINE, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

pub(crate) async fn count(server: &Postgres, table: &str) -> Result<i64> {
    let sql = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
    Ok(sqlx::query_scalar(sql).fetch_one(&mut server.connect("postgres").await?).await?)
}

/// Processes whose command line names the folder.
pub(crate) fn processes(folder: &Path) -> Result<Vec<String>> {
    let folder = folder.to_string_lossy().into_owned();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let path = entry?.path().join("cmdline");
        let text = std::fs::read_to_string(path).unwrap_or_default().replace('\0', " ");
        if text.contains(&folder) {
            found.push(text);
        }
    }
    Ok(found)
}
