//! What a check found: printed, and as JSON. All that is printed comes from the report.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use crate::{
    history::{History, HistoryCommand},
    law::{Judged, LawViolation},
    lines::{CommandEnd, HistoryVerb},
};

/// Everything that a check found.
#[derive(Clone, Debug, Serialize)]
pub struct CheckReport {
    /// What the runner's choices were drawn from.
    pub seed: u64,
    /// When the runner began, in its own words.
    pub started: String,
    /// How much there was to judge.
    pub counts: HistoryCounts,
    /// How often each law was held against something.
    pub judged: Vec<Judged>,
    /// What is wrong.
    pub violations: Vec<LawViolation>,
}

/// How much of everything a history has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HistoryCounts {
    /// Lines of the file.
    pub lines: u64,
    /// Operations by kind: `publish`, `submit`, `write`, `read`.
    pub ops: BTreeMap<&'static str, u64>,
    /// Different commands.
    pub ids: u64,
    /// Sendings that were accepted, with or without an outcome.
    pub accepted: u64,
    /// Of these, sendings that were told to be applied.
    pub applied: u64,
    /// Sendings that were told to be visible.
    pub visible: u64,
    /// Sendings that were refused.
    pub refused: u64,
    /// Sendings of which nothing is known, killed clients' with them.
    pub unknown: u64,
    /// Reads that saw something.
    pub reads: u64,
    /// How often a client was told that its bookmark lies on a lost branch.
    pub superseded: u64,
    /// Faults by kind.
    pub faults: BTreeMap<String, u64>,
    /// Rows of the ledger by outcome.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// Rows of the app's table.
    pub effects: u64,
    /// Messages of the stream.
    pub messages: u64,
}

impl HistoryCounts {
    pub(crate) fn of(history: &History) -> Self {
        let count = |is: fn(&HistoryCommand) -> bool| {
            history.commands.iter().filter(|command| is(command)).count() as u64
        };
        let mut counts = Self {
            lines: history.lines,
            ids: history.fates.len() as u64,
            accepted: count(HistoryCommand::is_accepted),
            applied: count(|c| matches!(c.end, Some(told) if told.end == CommandEnd::Applied)),
            visible: count(|c| matches!(c.end, Some(told) if told.visible)),
            refused: count(HistoryCommand::is_refused),
            unknown: count(|command| !command.is_accepted() && !command.is_refused()),
            reads: history.reads.iter().filter(|read| read.seen.is_some()).count() as u64,
            superseded: history.superseded.len() as u64,
            messages: history.messages,
            ..Self::default()
        };
        for command in &history.commands {
            let word = match command.verb {
                HistoryVerb::Publish => "publish",
                HistoryVerb::Submit => "submit",
                HistoryVerb::Write => "write",
            };
            *counts.ops.entry(word).or_default() += 1;
        }
        counts.ops.insert("read", history.reads.len() as u64);
        for fault in &history.faults {
            *counts.faults.entry(fault.kind.clone()).or_default() += 1;
        }
        for fate in &history.fates {
            counts.effects += fate.effects.len() as u64;
            for outcome in &fate.outcomes {
                *counts.outcomes.entry(outcome.as_str()).or_default() += 1;
            }
        }
        counts
    }
}

impl CheckReport {
    /// Whether no law was broken.
    #[must_use]
    pub const fn is_well(&self) -> bool {
        self.violations.is_empty()
    }

    /// The last line.
    #[must_use]
    pub fn verdict(&self) -> String {
        match self.violations.len() {
            0 => "check: PASS".to_owned(),
            1 => "check: FAIL (1 violation)".to_owned(),
            n => format!("check: FAIL ({n} violations)"),
        }
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HistoryCounts { lines, ids, accepted, applied, visible, refused, unknown, .. } =
            self.counts;
        let HistoryCounts { reads, superseded, effects, messages, .. } = self.counts;
        writeln!(f, "history of seed {}, {lines} lines, started {}", self.seed, self.started)?;
        writeln!(f, "operations   {}", list(&self.counts.ops))?;
        writeln!(
            f,
            "commands     {ids} ids; {accepted} accepted, of these {applied} told applied and {visible} visible; {refused} refused, {unknown} unknown"
        )?;
        writeln!(f, "reads        {reads} completed; {superseded} bookmarks superseded")?;
        writeln!(f, "faults       {}", list(&self.counts.faults))?;
        writeln!(
            f,
            "end state    {}; {effects} effects, {messages} messages",
            list(&self.counts.outcomes)
        )?;
        writeln!(f)?;
        for Judged { law, times, broken } in &self.judged {
            let word = match (times, broken) {
                (0, _) => "-",
                (_, 0) => "ok",
                _ => "FAIL",
            };
            writeln!(f, "{word:<4}  {:<22} {times:>9} judged {broken:>7} broken", law.as_str())?;
        }
        writeln!(f)?;
        for violation in &self.violations {
            writeln!(f, "{violation}")?;
        }
        writeln!(f, "{}", self.verdict())
    }
}

/// `3 kill_worker, 1 failover`.
fn list(counts: &BTreeMap<impl fmt::Display, u64>) -> String {
    let counts: Vec<_> = counts.iter().map(|(word, count)| format!("{count} {word}")).collect();
    if counts.is_empty() { "none".to_owned() } else { counts.join(", ") }
}
