//! Which moments may be compared with each other: within one session of a client, and while nothing
//! was disturbed.

use std::collections::HashMap;

use crate::{
    history::{Fault, History, HistoryMoment},
    lines::CommandEnd,
    names::Name,
};

/// The sessions of the clients. A session ends where its client is told that its knowledge lies on
/// a lost branch.
pub(crate) struct Sessions {
    ends: HashMap<Name, Vec<HistoryMoment>>,
}

impl Sessions {
    pub(crate) fn of(history: &History) -> Self {
        let mut ends: HashMap<Name, Vec<HistoryMoment>> = HashMap::new();
        for (client, at) in &history.superseded {
            ends.entry(*client).or_default().push(*at);
        }
        for command in &history.commands {
            if let Some(told) = command.end.filter(|told| told.end == CommandEnd::Superseded) {
                ends.entry(command.client).or_default().push(told.at);
            }
        }
        ends.values_mut().for_each(|ends| ends.sort_unstable());
        Self { ends }
    }

    /// The session that a client had all the time. An operation that spans two sessions belongs to
    /// neither.
    pub(crate) fn throughout(
        &self,
        client: Name,
        from: HistoryMoment,
        to: HistoryMoment,
    ) -> Option<usize> {
        let Some(ends) = self.ends.get(&client) else { return Some(0) };
        same(ends, from, to)
    }
}

/// The times between faults: each begins and ends where a fault begins or is healed.
pub(crate) struct Calms {
    turns: Vec<HistoryMoment>,
    /// How many faults are on, before the first turn and after each.
    on: Vec<i64>,
}

impl Calms {
    pub(crate) fn of(history: &History) -> Self {
        // A fault that was over at once is a turn, and is not on.
        let mut turns = Vec::new();
        for Fault { began, healed, .. } in &history.faults {
            turns.push((*began, i64::from(healed.is_some())));
            turns.extend(healed.map(|healed| (healed, -1)));
        }
        turns.sort_unstable();
        let mut on = vec![0];
        for (_, change) in &turns {
            on.push(on.last().unwrap_or(&0) + change);
        }
        Self { turns: turns.into_iter().map(|(at, _)| at).collect(), on }
    }

    /// The calm that lasted all the time.
    pub(crate) fn throughout(&self, from: HistoryMoment, to: HistoryMoment) -> Option<usize> {
        same(&self.turns, from, to).filter(|calm| self.on.get(*calm) == Some(&0))
    }
}

/// The last moment at which a failover was under way.
pub(crate) fn last_failover(history: &History) -> Option<HistoryMoment> {
    let failovers = history.faults.iter().filter(|fault| fault.kind == "failover");
    failovers.map(|fault| fault.healed.unwrap_or(fault.began)).max()
}

/// How many ends come before both moments, when the number is the same.
fn same(ends: &[HistoryMoment], from: HistoryMoment, to: HistoryMoment) -> Option<usize> {
    let before = |moment| ends.partition_point(|end| *end < moment);
    (before(from) == before(to)).then(|| before(from))
}
