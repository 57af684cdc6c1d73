//! What may never be, in any state of any world.

use crate::{
    protocol::Protocol,
    state::{Database, Server, State, Told},
    world::Defect,
};

/// A law: its name, and whether a state keeps it.
pub type Law = (&'static str, fn(&Protocol, &State) -> bool);

/// All laws. The numbers are those of the invariants in ARCHITECTURE.md.
pub const LAWS: [Law; 7] = [
    ("3: one id has one effect", one_effect),
    ("3: a command that waits keeps its id", waiting_keeps),
    ("4: commands of a key take effect in the order of their calls", in_order),
    ("5: what a lane has passed has ended, or waits", nothing_skipped),
    ("8: what was trimmed has ended, or waits", nothing_trimmed),
    ("7: what is visible is there", visible_is_there),
    ("2: outcomes are told by the one database", told_by_one),
];

/// What shows that a world goes somewhere: a state in which every command has ended.
pub(crate) fn all_ended(protocol: &Protocol, state: &State) -> bool {
    let commands = protocol.world.commands.iter();
    commands.enumerate().all(|(number, _)| {
        has_ended(protocol, &state.primary, number as u8) && state.primary.parked.is_empty()
    })
}

fn databases(state: &State) -> impl Iterator<Item = &Database> {
    [Some(&state.primary), state.replica.as_ref(), state.copy.as_ref()].into_iter().flatten()
}

fn one_effect(_: &Protocol, state: &State) -> bool {
    databases(state).all(|database| {
        let mut ids: Vec<u8> = database.effects.iter().map(|effect| effect.id).collect();
        ids.sort_unstable();
        ids.windows(2).all(|pair| pair[0] != pair[1])
    })
}

fn waiting_keeps(protocol: &Protocol, state: &State) -> bool {
    let waiting = || state.primary.parked.iter().map(|&parked| protocol.command(parked).id);
    waiting().all(|id| state.primary.effects.iter().all(|effect| effect.id != id))
}

/// Judged while the broker has lost nothing: what it lost may come again, behind what came later.
fn in_order(protocol: &Protocol, state: &State) -> bool {
    state.stream.era > 0
        || databases(state).all(|database| {
            (0..protocol.world.commands.len()).all(|key| {
                let of_key = |command: &u8| usize::from(protocol.command(*command).key) == key;
                let ran = database.effects.iter().map(|effect| effect.command).filter(of_key);
                ran.is_sorted()
            })
        })
}

fn has_ended(protocol: &Protocol, database: &Database, command: u8) -> bool {
    let id = protocol.command(command).id;
    let waits = |&parked: &u8| protocol.command(parked).id == id;
    database.knows(id) || id <= database.forgotten || database.parked.iter().any(waits)
}

/// Judged where a worker has compared the stream, as it is now, with the positions.
fn nothing_skipped(protocol: &Protocol, state: &State) -> bool {
    let database = &state.primary;
    let has_compared = state.workers.iter().flatten().any(|worker| {
        worker.server == Server::Primary
            && worker.era == state.stream.era
            && database.owner() == Some(worker.epoch)
    });
    !has_compared
        || (1..).zip(&state.stream.messages).all(|(sequence, message)| {
            let lane = protocol.lane_of(message.command);
            let is_passed = database.lanes[usize::from(lane)].position >= sequence;
            !is_passed || has_ended(protocol, database, message.command)
        })
}

fn nothing_trimmed(protocol: &Protocol, state: &State) -> bool {
    let trimmed = state.stream.messages.iter().take(usize::from(state.stream.trimmed));
    trimmed.into_iter().all(|message| has_ended(protocol, &state.primary, message.command))
}

/// Whether a reader of a database is told that a bookmark is visible.
fn is_visible(protocol: &Protocol, database: &Database, told: &Told) -> bool {
    let reached = database.lsn >= told.lsn;
    if protocol.has(Defect::NoBranch) {
        return reached;
    }
    let is_own = database.history.last().is_none_or(|last| last.cluster == database.cluster);
    let holds = database.history.iter().any(|takeover| takeover.epoch == told.epoch);
    if !holds || !(is_own || protocol.has(Defect::NoIdentity)) {
        return false;
    }
    // Where the bookmark's timeline ended, as the first takeover after it wrote down.
    let left = database.history.iter().find(|takeover| takeover.timeline > told.timeline);
    match left.and_then(|takeover| takeover.left_at) {
        Some(end) => reached && told.lsn <= end,
        None => reached && database.timeline == told.timeline,
    }
}

fn visible_is_there(protocol: &Protocol, state: &State) -> bool {
    databases(state).all(|database| {
        let mut visible = state.told.iter().filter(|told| is_visible(protocol, database, told));
        visible.all(|told| {
            let parts = protocol.world.commands.iter().find(|command| command.id == told.id);
            let parts = parts.map_or(&[][..], |command| command.parts);
            let has = |id: u8| database.effects.iter().any(|effect| effect.id == id);
            if parts.is_empty() { has(told.id) } else { parts.iter().all(|&part| has(part)) }
        })
    })
}

fn told_by_one(_: &Protocol, state: &State) -> bool {
    state.told.windows(2).all(|pair| pair[0].cluster == pair[1].cluster)
}
