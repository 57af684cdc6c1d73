//! A check of one history against every law, and of a file: what is printed and what goes to JSON.

use std::{
    fs::{self, File},
    io::{BufReader, Write},
    path::Path,
};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::{
    effects,
    history::History,
    law::Findings,
    order, outcomes, reads,
    report::{CheckReport, HistoryCounts},
};

/// Checks a file, prints the report to `out`, writes it to `json`, and answers whether no law was
/// broken.
///
/// # Errors
/// When the history cannot be read or is incomplete, or the JSON cannot be written.
pub fn run(history: &Path, json: Option<&Path>, out: &mut impl Write) -> Result<bool> {
    let checked = check_file(history);
    if let Some(json) = json {
        CheckEnding::of(&checked).write(json)?;
    }
    let report = checked?;
    // A reader that has closed its pipe is no error.
    let _ = write!(out, "{report}");
    Ok(report.is_well())
}

/// Checks a file.
///
/// # Errors
/// When it cannot be read, or is no complete history.
pub fn check_file(path: &Path) -> Result<CheckReport> {
    let place = || path.display().to_string();
    let file = File::open(path).with_context(place)?;
    let history = History::read(BufReader::with_capacity(1 << 16, file)).with_context(place)?;
    Ok(check(&history))
}

/// Holds a history against every law.
#[must_use]
pub fn check(history: &History) -> CheckReport {
    let mut findings = Findings::new();
    outcomes::judge(history, &mut findings);
    effects::judge(history, &mut findings);
    order::judge(history, &mut findings);
    reads::judge(history, &mut findings);
    CheckReport {
        seed: history.seed,
        started: history.started.clone(),
        counts: HistoryCounts::of(history),
        judged: findings.judged.into(),
        violations: findings.violations,
    }
}

/// The JSON file: how the check ended, and the report where there is one.
#[derive(Serialize)]
struct CheckEnding<'a> {
    check: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(flatten)]
    report: Option<&'a CheckReport>,
}

impl<'a> CheckEnding<'a> {
    fn of(checked: &'a Result<CheckReport>) -> Self {
        let is_well = checked.as_ref().is_ok_and(CheckReport::is_well);
        Self {
            check: if is_well { "PASS" } else { "FAIL" },
            reason: checked.as_ref().err().map(|error| format!("{error:#}")),
            report: checked.as_ref().ok(),
        }
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
