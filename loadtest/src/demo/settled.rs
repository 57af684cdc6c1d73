//! How far the worker is: the lowest position of its lanes, shown and awaited.
//!
//! The position is in PostgreSQL, in the transaction of the effects. So "settled up to here" is a
//! fact, and asking for the position costs one row a lane.

use std::{
    io::IsTerminal,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use sqlx::PgConnection;
use tokio::time::{Instant, sleep};

use super::text::grouped;

/// How often the position is asked for.
const LOOK: Duration = Duration::from_millis(100);
/// How often a line shows the progress where there is no terminal for a bar.
const SAY: Duration = Duration::from_secs(5);
/// How long the worker may stand still before it is given up.
const STUCK: Duration = Duration::from_secs(60);

/// Everything in the stream up to here (inclusive) is settled.
async fn position(connection: &mut PgConnection) -> Result<u64> {
    let lowest: Option<i64> = sqlx::query_scalar("SELECT min(sequence) FROM farwrite.lanes")
        .fetch_one(connection)
        .await?;
    Ok(lowest.map_or(0, i64::cast_unsigned))
}

/// Waits until everything up to `last` is settled, for as long as there is progress.
pub(super) async fn wait_settled(connection: &mut PgConnection, last: u64) -> Result<()> {
    let (mut reached, mut moved_at) = (0, Instant::now());
    loop {
        let now = position(connection).await?;
        if now >= last {
            return Ok(());
        }
        if now > reached {
            (reached, moved_at) = (now, Instant::now());
        } else if moved_at.elapsed() > STUCK {
            bail!(
                "the worker has stood still for {} s, at {} of {} commands",
                STUCK.as_secs(),
                grouped(now),
                grouped(last)
            );
        }
        sleep(LOOK).await;
    }
}

/// Shows the progress, as a bar on a terminal and as lines elsewhere, until it is dropped. Ends
/// only with an error.
pub(super) async fn show_progress(
    mut connection: PgConnection,
    messages: u64,
    rows: usize,
    started: &AtomicUsize,
) -> anyhow::Error {
    let bar = bar(messages);
    let is_terminal = std::io::stderr().is_terminal();
    let mut said_at = Instant::now();
    loop {
        let settled = match position(&mut connection).await {
            Ok(settled) => settled,
            Err(error) => return error,
        };
        let started = started.load(Ordering::Relaxed);
        bar.set_position(settled.min(messages));
        let what = if started < rows { "publishing" } else { "late copies" };
        bar.set_message(what);
        if !is_terminal && said_at.elapsed() > SAY {
            said_at = Instant::now();
            eprintln!("  {} of {} settled, {what}", grouped(settled), grouped(messages));
        }
        sleep(LOOK).await;
    }
}

/// Draws on standard error; draws nothing where that is no terminal.
fn bar(messages: u64) -> ProgressBar {
    let form = "  {bar:24} {human_pos} of {human_len} settled, {elapsed}, {msg}";
    let bar = ProgressBar::new(messages);
    match ProgressStyle::with_template(form) {
        Ok(style) => bar.with_style(style.progress_chars("━━╌")),
        Err(_) => bar,
    }
    .with_finish(indicatif::ProgressFinish::AndClear)
}
