//! The checker: holds a history of what clients did and were told against what was there in the
//! end, and says which of the promises were broken.
//!
//! It knows nothing of how Farwrite works and uses none of its code: what it is told is a file, in a
//! form of its own (`docs/chaos.md`), and what it says is made of that file alone. A history that is
//! incomplete or that cannot be understood is an error, never a pass.

mod effects;
mod eras;
mod floors;
mod history;
mod law;
mod line;
mod names;
mod order;
mod outcomes;
mod reading;
mod reads;
mod report;
mod writer;

use std::{
    fs::{self, File},
    io::{BufReader, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::Serialize;

pub use history::History;
pub use law::{Judged, Law, Violation};
pub use line::{CommandEnd, Outcome, Verb};
pub use report::{Counts, Report};
pub use writer::{Begun, CommandOp, HistoryWriter, ReadOp};

use law::Findings;

/// What to check.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The history.
    pub history: PathBuf,
    /// Where the report goes as JSON, if anywhere.
    pub json: Option<PathBuf>,
}

/// Checks a file, says the report to whoever listens, and answers whether no law was broken.
///
/// # Errors
/// When the history cannot be read or is incomplete, or the JSON cannot be written.
pub fn run(settings: &Settings, out: &mut impl Write) -> Result<bool> {
    let checked = check_file(&settings.history);
    if let Some(json) = &settings.json {
        let ending = match &checked {
            Ok(report) => Ending::of(report),
            Err(error) => {
                Ending { check: "FAIL", reason: Some(format!("{error:#}")), report: None }
            }
        };
        ending.write(json)?;
    }
    let report = checked?;
    // One who does not want to hear any more (a closed pipe) is no error.
    let _ = write!(out, "{report}");
    Ok(report.is_well())
}

/// Checks a file.
///
/// # Errors
/// When it cannot be read, or is no complete history.
pub fn check_file(path: &Path) -> Result<Report> {
    let place = || path.display().to_string();
    let file = File::open(path).with_context(place)?;
    let history = History::read(BufReader::with_capacity(1 << 16, file)).with_context(place)?;
    Ok(check(&history))
}

/// Holds a history against every law.
#[must_use]
pub fn check(history: &History) -> Report {
    let mut findings = Findings::new();
    outcomes::judge(history, &mut findings);
    effects::judge(history, &mut findings);
    order::judge(history, &mut findings);
    reads::judge(history, &mut findings);
    Report::of(history, findings)
}

/// The JSON file: how the check ended, and the report where it came to one.
#[derive(Serialize)]
struct Ending<'a> {
    check: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(flatten)]
    report: Option<&'a Report>,
}

impl<'a> Ending<'a> {
    const fn of(report: &'a Report) -> Self {
        let check = if report.is_well() { "PASS" } else { "FAIL" };
        Self { check, reason: None, report: Some(report) }
    }

    fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        }
        fs::write(path, text).with_context(|| format!("writing {}", path.display()))
    }
}
