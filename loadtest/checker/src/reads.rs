//! Reads: a client sees what it wrote, what it was told to be visible, and what it has seen.
//!
//! A read with a bookmark is bound by all that its client knew in the same session. A read without
//! one is bound by what its region was told to show while nothing was disturbed: a replica that
//! crashes goes back.
//!
//! A failover that loses commits numbers effects anew. A read before the failover is numbered by
//! the last effect that it showed, whose number in the end is known.

use std::{collections::HashMap, hash::Hash};

use uuid::Uuid;

use crate::{
    eras::{self, Calms, Sessions},
    floors::{FloorMark, floors},
    history::{CommandAnswer, History, HistoryCommand, HistoryMoment, HistoryRead, SeenEffects},
    law::{Broken, Findings, Law},
    lines::CommandEnd,
    names::Name,
};

pub(crate) fn judge(history: &History, findings: &mut Findings) {
    let sessions = Sessions::of(history);
    let numbers = FinalNumbers::of(history);
    judge_written(history, findings, &sessions, &numbers);
    judge_visible(history, findings, &numbers);
    judge_monotonic(history, findings, &sessions, &numbers);
    judge_known(history, findings, &numbers);
}

/// Reads that saw something, with when they ended.
fn completed(
    history: &History,
) -> impl Iterator<Item = (usize, &HistoryRead, HistoryMoment, SeenEffects)> {
    let reads = history.reads.iter().enumerate();
    reads.filter_map(|(index, read)| Some((index, read, read.end?, read.seen?)))
}

/// Where effects are in the end, by key and id.
struct FinalNumbers {
    last_failover: Option<HistoryMoment>,
    of: HashMap<(Name, Uuid), u64>,
}

impl FinalNumbers {
    fn of(history: &History) -> Self {
        let effects = history.fates.iter().flat_map(|fate| {
            let number = |key| fate.number(key);
            fate.effects
                .iter()
                .filter_map(move |effect| Some(((effect.key, fate.id), number(effect.key)?)))
        });
        Self { last_failover: eras::last_failover(history), of: effects.collect() }
    }

    /// Whether a failover may have taken away what a read saw.
    fn may_be_lost(&self, read: &HistoryRead) -> bool {
        self.last_failover.is_some_and(|failover| failover > read.start)
    }

    /// How many effects a read saw, as they are numbered in the end. None where the last one is not
    /// there in the end.
    fn seen(&self, read: &HistoryRead, seen: SeenEffects) -> Option<u64> {
        match seen.last {
            Some(last) if self.may_be_lost(read) => self.of.get(&(read.key, last)).copied(),
            Some(_) | None => Some(seen.n),
        }
    }
}

/// Commands whose effect has a number, with what their callers were told and the number.
fn numbered(
    history: &History,
) -> impl Iterator<Item = (usize, &HistoryCommand, CommandAnswer, u64)> {
    let commands = history.commands.iter().enumerate();
    commands.filter_map(|(index, command)| {
        let n = history.fates[command.fate].number(command.key)?;
        Some((index, command, command.end?, n))
    })
}

const fn may_be_seen(told: CommandAnswer) -> bool {
    matches!(told.end, CommandEnd::Applied | CommandEnd::Accepted)
}

fn judge_written(
    history: &History,
    findings: &mut Findings,
    sessions: &Sessions,
    numbers: &FinalNumbers,
) {
    let wrote = numbered(history).filter(|(.., told, _)| {
        told.end == CommandEnd::Applied || told.visible && may_be_seen(*told)
    });
    let wrote = wrote.filter_map(|(whose, command, told, n)| {
        let session = sessions.throughout(command.client, command.start, told.at)?;
        Some(FloorMark { group: (command.client, command.key, session), at: told.at, n, whose })
    });
    let pairs = floors(wrote.collect(), bookmarked(history, sessions, numbers));
    compare(history, findings, Law::ReadStale, pairs, "was told applied");
}

fn judge_visible(history: &History, findings: &mut Findings, numbers: &FinalNumbers) {
    let calms = Calms::of(history);
    let shown = numbered(history).filter(|(.., told, _)| told.visible && may_be_seen(*told));
    let shown = shown.filter_map(|(whose, command, told, n)| {
        let HistoryCommand { client, key, region, .. } = *command;
        let calm = calms.throughout(command.start, told.at)?;
        Some(FloorMark { group: (client, key, region, calm), at: told.at, n, whose })
    });
    let reads = completed(history).filter_map(|(whose, read, end, seen)| {
        let HistoryRead { client, key, region, .. } = *read;
        let calm = calms.throughout(read.start, end)?;
        let n = numbers.seen(read, seen)?;
        Some(FloorMark { group: (client, key, region, calm), at: read.start, n, whose })
    });
    let pairs = floors(shown.collect(), reads.collect());
    compare(history, findings, Law::VisibleTooEarly, pairs, "was told visible there");
}

/// Holds reads against what commands had brought before them.
fn compare<G: Copy + Eq + Hash>(
    history: &History,
    findings: &mut Findings,
    law: Law,
    pairs: Vec<(FloorMark<G>, FloorMark<G>)>,
    told: &str,
) {
    for (read, wrote) in pairs {
        findings.judge(law, read.n >= wrote.n, || {
            let (n, number) = (read.n, wrote.n);
            let (read, wrote) = (&history.reads[read.whose], &history.commands[wrote.whose]);
            let id = history.fates[wrote.fate].id;
            let sentence = format!(
                "{} read {n} of {number} effects (operation {}), after command {id} (operation {}) {told}",
                whom(history, read),
                read.op,
                wrote.op
            );
            let keys = vec![history.names.text(read.key).to_owned()];
            Broken { sentence, ids: vec![id], keys, ops: vec![wrote.op, read.op] }
        });
    }
}

fn judge_monotonic(
    history: &History,
    findings: &mut Findings,
    sessions: &Sessions,
    numbers: &FinalNumbers,
) {
    let earlier = completed(history).filter_map(|(whose, read, end, seen)| {
        let session = sessions.throughout(read.client, read.start, end)?;
        let n = numbers.seen(read, seen)?;
        Some(FloorMark { group: (read.client, read.key, session), at: end, n, whose })
    });
    for (later, earlier) in floors(earlier.collect(), bookmarked(history, sessions, numbers)) {
        findings.judge(Law::ReadBack, later.n >= earlier.n, || {
            let (n, had) = (later.n, earlier.n);
            let (later, earlier) = (&history.reads[later.whose], &history.reads[earlier.whose]);
            let sentence = format!(
                "{} read {n} effects (operation {}), after it had read {had} (operation {})",
                whom(history, later),
                later.op,
                earlier.op
            );
            let ids = later.seen.into_iter().chain(earlier.seen).filter_map(|seen| seen.last);
            let keys = vec![history.names.text(later.key).to_owned()];
            Broken { sentence, ids: ids.collect(), keys, ops: vec![earlier.op, later.op] }
        });
    }
}

/// Reads with a bookmark, by client, key and session.
fn bookmarked(
    history: &History,
    sessions: &Sessions,
    numbers: &FinalNumbers,
) -> Vec<FloorMark<(Name, Name, usize)>> {
    let reads = completed(history).filter(|(_, read, ..)| read.bookmark);
    let reads = reads.filter_map(|(whose, read, end, seen)| {
        let session = sessions.throughout(read.client, read.start, end)?;
        let n = numbers.seen(read, seen)?;
        Some(FloorMark { group: (read.client, read.key, session), at: read.start, n, whose })
    });
    reads.collect()
}

/// What was read on a branch that a failover has lost since is rightly not there in the end.
fn judge_known(history: &History, findings: &mut Findings, numbers: &FinalNumbers) {
    for (_, read, _, seen) in completed(history) {
        if numbers.may_be_lost(read) {
            continue;
        }
        let is_known = match seen.last {
            Some(last) => numbers.of.get(&(read.key, last)) == Some(&seen.n),
            None => seen.n == 0,
        };
        findings.judge(Law::ReadUnknown, is_known, || {
            let last = seen.last.map_or_else(|| "none".to_owned(), |last| last.to_string());
            let sentence = format!(
                "{} read {} effects, the last {last} (operation {}), which is not there",
                whom(history, read),
                seen.n,
                read.op
            );
            let keys = vec![history.names.text(read.key).to_owned()];
            Broken { sentence, ids: seen.last.into_iter().collect(), keys, ops: vec![read.op] }
        });
    }
}

/// `far-3 in far, key k4:`
fn whom(history: &History, read: &HistoryRead) -> String {
    let [client, region, key] =
        [read.client, read.region, read.key].map(|name| history.names.text(name));
    format!("{client} in {region}, key {key}:")
}
