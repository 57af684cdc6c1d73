//! Reads: a client sees what it wrote, what it was told to be visible, and what it has seen.
//!
//! A read with a bookmark is bound by all that its client knew in the same session. One without is
//! bound by what its own region was told to show, while nothing was disturbed: a replica that
//! crashes goes back.
//!
//! A failover that loses commits numbers effects anew. What was read before it is placed by the last
//! effect that it showed, whose place in the end is known.

use std::{collections::HashMap, hash::Hash};

use uuid::Uuid;

use super::{
    eras::{self, Calms, Sessions},
    floors::{Mark, floors},
    history::{Command, History, Moment, Read, Seen, Told},
    law::{Broken, Findings, Law},
    line::CommandEnd,
    names::Name,
};

pub(super) fn judge(history: &History, findings: &mut Findings) {
    let sessions = Sessions::of(history);
    let places = Places::of(history);
    judge_written(history, findings, &sessions, &places);
    judge_visible(history, findings, &places);
    judge_monotonic(history, findings, &sessions, &places);
    judge_known(history, findings, &places);
}

/// Reads that saw something, with when they ended.
fn completed(history: &History) -> impl Iterator<Item = (usize, &Read, Moment, Seen)> {
    let reads = history.reads.iter().enumerate();
    reads.filter_map(|(index, read)| Some((index, read, read.end?, read.seen?)))
}

/// Where effects are in the end, by key and id.
struct Places {
    last_failover: Option<Moment>,
    of: HashMap<(Name, Uuid), u64>,
}

impl Places {
    fn of(history: &History) -> Self {
        let effects = history.fates.iter().flat_map(|fate| {
            let place = |key| fate.place(key);
            fate.effects
                .iter()
                .filter_map(move |effect| Some(((effect.key, fate.id), place(effect.key)?)))
        });
        Self { last_failover: eras::last_failover(history), of: effects.collect() }
    }

    /// Whether a failover may have taken away what a read saw.
    fn may_be_lost(&self, read: &Read) -> bool {
        self.last_failover.is_some_and(|failover| failover > read.start)
    }

    /// How many effects a read saw, as they are numbered in the end. None where the last one is not
    /// there in the end.
    fn seen(&self, read: &Read, seen: Seen) -> Option<u64> {
        match seen.last {
            Some(last) if self.may_be_lost(read) => self.of.get(&(read.key, last)).copied(),
            Some(_) | None => Some(seen.n),
        }
    }
}

/// Commands whose effect has a place, with what their callers were told and the place.
fn placed(history: &History) -> impl Iterator<Item = (usize, &Command, Told, u64)> {
    let commands = history.commands.iter().enumerate();
    commands.filter_map(|(index, command)| {
        let n = history.fates[command.fate].place(command.key)?;
        Some((index, command, command.end?, n))
    })
}

const fn may_be_seen(told: Told) -> bool {
    matches!(told.end, CommandEnd::Applied | CommandEnd::Accepted)
}

fn judge_written(history: &History, findings: &mut Findings, sessions: &Sessions, places: &Places) {
    let wrote = placed(history).filter(|(.., told, _)| {
        told.end == CommandEnd::Applied || told.visible && may_be_seen(*told)
    });
    let wrote = wrote.filter_map(|(whose, command, told, n)| {
        let session = sessions.throughout(command.client, command.start, told.at)?;
        Some(Mark { group: (command.client, command.key, session), at: told.at, n, whose })
    });
    let pairs = floors(wrote.collect(), bookmarked(history, sessions, places));
    compare(history, findings, Law::ReadStale, pairs, "was told applied");
}

fn judge_visible(history: &History, findings: &mut Findings, places: &Places) {
    let calms = Calms::of(history);
    let shown = placed(history).filter(|(.., told, _)| told.visible && may_be_seen(*told));
    let shown = shown.filter_map(|(whose, command, told, n)| {
        let Command { client, key, region, .. } = *command;
        let calm = calms.throughout(command.start, told.at)?;
        Some(Mark { group: (client, key, region, calm), at: told.at, n, whose })
    });
    let reads = completed(history).filter_map(|(whose, read, end, seen)| {
        let Read { client, key, region, .. } = *read;
        let calm = calms.throughout(read.start, end)?;
        let n = places.seen(read, seen)?;
        Some(Mark { group: (client, key, region, calm), at: read.start, n, whose })
    });
    let pairs = floors(shown.collect(), reads.collect());
    compare(history, findings, Law::VisibleTooEarly, pairs, "was told visible there");
}

/// Holds reads against what commands had brought before them.
fn compare<G: Copy + Eq + Hash>(
    history: &History,
    findings: &mut Findings,
    law: Law,
    pairs: Vec<(Mark<G>, Mark<G>)>,
    told: &str,
) {
    for (read, wrote) in pairs {
        findings.judge(law, read.n >= wrote.n, || {
            let (n, place) = (read.n, wrote.n);
            let (read, wrote) = (&history.reads[read.whose], &history.commands[wrote.whose]);
            let id = history.fates[wrote.fate].id;
            let sentence = format!(
                "{} read {n} of {place} effects (operation {}), after command {id} (operation {}) {told}",
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
    places: &Places,
) {
    let earlier = completed(history).filter_map(|(whose, read, end, seen)| {
        let session = sessions.throughout(read.client, read.start, end)?;
        let n = places.seen(read, seen)?;
        Some(Mark { group: (read.client, read.key, session), at: end, n, whose })
    });
    for (later, earlier) in floors(earlier.collect(), bookmarked(history, sessions, places)) {
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
    places: &Places,
) -> Vec<Mark<(Name, Name, usize)>> {
    let reads = completed(history).filter(|(_, read, ..)| read.bookmark);
    let reads = reads.filter_map(|(whose, read, end, seen)| {
        let session = sessions.throughout(read.client, read.start, end)?;
        let n = places.seen(read, seen)?;
        Some(Mark { group: (read.client, read.key, session), at: read.start, n, whose })
    });
    reads.collect()
}

/// What was read on a branch that a failover has lost since is nowhere to be found, rightly.
fn judge_known(history: &History, findings: &mut Findings, places: &Places) {
    for (_, read, _, seen) in completed(history) {
        if places.may_be_lost(read) {
            continue;
        }
        let is_known = match seen.last {
            Some(last) => places.of.get(&(read.key, last)) == Some(&seen.n),
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
fn whom(history: &History, read: &Read) -> String {
    let [client, region, key] =
        [read.client, read.region, read.key].map(|name| history.names.text(name));
    format!("{client} in {region}, key {key}:")
}
