//! What happens: each step, as the programs do it. `None` where a step is not possible.

use crate::{
    state::{
        Call, Database, Effect, LaneRow, Message, Server, Serving, State, Stream, Takeover, Told,
    },
    step::Step,
    world::{Command, Defect, World},
};

/// A world, and the defect that was put back into it.
#[derive(Clone, Copy, Debug)]
pub struct Protocol {
    /// The world.
    pub world: World,
    /// The defect, if any.
    pub defect: Option<Defect>,
}

/// Takes one of what may still happen.
fn spend(left: &mut u8) -> Option<()> {
    *left = left.checked_sub(1)?;
    Some(())
}

fn count(length: usize) -> u8 {
    u8::try_from(length).unwrap_or(u8::MAX)
}

impl Stream {
    fn message(&self, sequence: u8) -> Option<Message> {
        self.messages.get(usize::from(sequence).checked_sub(1)?).copied()
    }

    fn last(&self) -> LaneRow {
        let position = count(self.messages.len());
        LaneRow { position, proof: self.message(position) }
    }

    /// Whether the message at a position is the one that stood there, as far as that is known.
    fn holds(&self, at: LaneRow) -> bool {
        at.position <= self.trimmed
            || match (at.proof, self.message(at.position)) {
                (_, None) => false,
                (None, Some(_)) => true,
                (Some(before), Some(now)) => before == now,
            }
    }
}

impl Protocol {
    pub(crate) fn first(&self) -> State {
        let lanes = vec![LaneRow::default(); usize::from(self.world.lanes)];
        let primary = Database {
            cluster: 0,
            timeline: 1,
            promoted_at: None,
            lsn: 0,
            effects: Vec::new(),
            ledger: Vec::new(),
            horizon: 0,
            forgotten: 0,
            lanes,
            parked: Vec::new(),
            history: Vec::new(),
            refused: false,
        };
        State {
            calls: vec![Call::ToCome; self.world.commands.len()],
            air: Vec::new(),
            stream: Stream::default(),
            primary,
            replica: None,
            copy: None,
            workers: vec![None; usize::from(self.world.workers)],
            named: None,
            told: Vec::new(),
            epochs: 0,
            left: self.world.faults,
        }
    }

    pub(crate) fn has(&self, defect: Defect) -> bool {
        self.defect == Some(defect)
    }

    /// What a commit adds to a position of the log.
    fn commits(&self) -> u8 {
        u8::from(self.world.has_bookmarks())
    }

    pub(crate) fn command(&self, number: u8) -> Command {
        self.world.commands[usize::from(number)]
    }

    /// The lane of a command: its key's.
    pub(crate) fn lane_of(&self, command: u8) -> u8 {
        self.command(command).key % self.world.lanes
    }

    pub(crate) fn next(&self, state: &State, step: Step) -> Option<State> {
        let mut next = state.clone();
        match step {
            Step::Publish { command } => self.publish(&mut next, command),
            Step::Resend { command } => self.resend(&mut next, command),
            Step::Drop { command } => {
                spend(&mut next.left.drops)?;
                next.calls[usize::from(command)] = Call::Dropped;
                Some(())
            }
            Step::Land { command } => {
                take_from_air(&mut next, command)?;
                let era = next.stream.era;
                next.stream.messages.push(Message { command, era });
                Some(())
            }
            Step::Lose { command } => take_from_air(&mut next, command),
            Step::Acknowledge { command } => {
                let is_stored =
                    next.stream.messages.iter().any(|message| message.command == command);
                next.calls[usize::from(command)] = Call::Known;
                is_stored.then_some(())
            }
            Step::TakeOver { worker, server } => self.take_over(&mut next, worker, server),
            Step::Read { worker } => self.read(&mut next, worker),
            Step::Begin { worker, lane } => self.begin(&mut next, worker, lane),
            Step::Commit { worker, lane } => self.commit(&mut next, worker, lane),
            Step::MoveAlong { worker, lane } => self.move_along(&mut next, worker, lane),
            Step::Retry { worker, command } => self.retry(&mut next, worker, command),
            Step::Crash { worker } => {
                spend(&mut next.left.crashes)?;
                next.workers[usize::from(worker)] = None;
                Some(())
            }
            Step::Replicate if !self.world.has_replica() => None,
            Step::Replicate => {
                let is_news = next.replica.as_ref() != Some(&next.primary);
                next.replica = Some(next.primary.clone());
                is_news.then_some(())
            }
            Step::FailOver => fail_over(&mut next),
            Step::LoseTail { keeps } => {
                spend(&mut next.left.losses)?;
                next.stream.messages.truncate(usize::from(keeps));
                next.stream.era += 1;
                Some(())
            }
            Step::Forget => self.forget(&mut next),
            Step::Adopt => self.adopt(&mut next),
            Step::Copy => {
                spend(&mut next.left.copies)?;
                next.copy = Some(Database { cluster: 1, ..next.primary.clone() });
                Some(())
            }
            Step::Write { server } => {
                spend(&mut next.left.writes)?;
                next.database_mut(server)?.lsn += 1;
                Some(())
            }
            Step::Trim => self.trim(&mut next),
        }?;
        Some(next)
    }

    /// A key's calls follow each other: the next is made when the one before is known to be stored.
    fn publish(&self, state: &mut State, command: u8) -> Option<()> {
        let key = self.command(command).key;
        let is_free = (0..command).filter(|&before| self.command(before).key == key).all(
            |before| match state.calls[usize::from(before)] {
                Call::Known => true,
                Call::Dropped => self.has(Defect::DropFreesKey),
                Call::Out | Call::ToCome => false,
            },
        );
        state.calls[usize::from(command)] = Call::Out;
        state.air.push(command);
        is_free.then_some(())
    }

    /// A call in doubt is sent again; for a caller who has gone the producer does it.
    fn resend(&self, state: &mut State, command: u8) -> Option<()> {
        let is_dropped = state.calls[usize::from(command)] == Call::Dropped;
        if state.air.contains(&command) || is_dropped && self.has(Defect::DropFreesKey) {
            return None;
        }
        spend(&mut state.left.resends)?;
        state.air.push(command);
        Some(())
    }

    /// The stream is compared before anything is read: what the furthest lane stands at is there.
    fn take_over(&self, state: &mut State, worker: u8, server: Server) -> Option<()> {
        let (epoch, era) = (state.epochs + 1, state.stream.era);
        let stream = state.stream.clone();
        let named = state.named;
        let database = state.database_mut(server)?;
        let is_own = database.history.last().is_none_or(|last| last.cluster == database.cluster)
            && named.is_none_or(|named| named == database.cluster);
        if database.refused || !(is_own || self.has(Defect::NoIdentity)) {
            return None;
        }
        if !stream.holds(database.highest()) {
            database.refused = true;
            return Some(());
        }
        let (timeline, cluster) = (database.timeline, database.cluster);
        let before = database.history.last().map(|last| last.timeline);
        let left_at = database.promoted_at.filter(|_| before.is_some_and(|it| it != timeline));
        database.history.push(Takeover { epoch, timeline, left_at, cluster });
        database.lsn += self.commits();
        let read_to = LaneRow { position: database.low_water(), proof: None };
        let queues = vec![Vec::new(); usize::from(self.world.lanes)];
        let serving = Serving { server, epoch, era, read_to, queues, open: None };
        state.workers[usize::from(worker)] = Some(serving);
        state.epochs = epoch;
        state.named.get_or_insert(cluster);
        spend(&mut state.left.takeovers)
    }

    /// Each reader that is made anew compares the stream again.
    fn read(&self, state: &mut State, worker: u8) -> Option<()> {
        let stream = state.stream.clone();
        let mut serving = state.workers[usize::from(worker)].take()?;
        let database = state.database_mut(serving.server)?;
        if serving.era != stream.era {
            let is_same = stream.holds(database.highest()) && stream.holds(serving.read_to);
            if !is_same {
                let is_owner = database.owner() == Some(serving.epoch);
                database.refused |= is_owner;
                return Some(());
            }
            serving.era = stream.era;
        } else if stream.last().position <= serving.read_to.position {
            return None;
        }
        for sequence in serving.read_to.position + 1..=stream.last().position {
            let message = stream.message(sequence)?;
            let lane = self.lane_of(message.command);
            if sequence > database.lanes[usize::from(lane)].position {
                serving.queues[usize::from(lane)].push((sequence, message));
            }
        }
        if stream.last().position > serving.read_to.position {
            serving.read_to = stream.last();
        }
        state.workers[usize::from(worker)] = Some(serving);
        Some(())
    }

    /// An atomic batch looks at what is known of its parts, and runs the others.
    fn begin(&self, state: &mut State, worker: u8, lane: u8) -> Option<()> {
        let serving = state.workers[usize::from(worker)].clone()?;
        let (_, message) = *serving.queues[usize::from(lane)].first()?;
        let parts = self.command(message.command).parts;
        if parts.is_empty() || serving.open.is_some() {
            return None;
        }
        let ledger = &state.database(serving.server)?.ledger;
        let known = parts.iter().copied().filter(|part| ledger.contains(part)).collect();
        state.workers[usize::from(worker)] = Some(Serving { open: Some((lane, known)), ..serving });
        Some(())
    }

    /// A batch of one command, in one transaction with its lane's position. Who was taken over from ends.
    fn commit(&self, state: &mut State, worker: u8, lane: u8) -> Option<()> {
        let mut serving = state.workers[usize::from(worker)].take()?;
        let queue = &mut serving.queues[usize::from(lane)];
        if queue.is_empty() {
            return None;
        }
        let (sequence, message) = queue.remove(0);
        let number = message.command;
        let command = self.command(number);
        let server = serving.server;
        let database = state.database_mut(server)?;
        let stands_at = database.lanes[usize::from(lane)].position;
        if database.owner() != Some(serving.epoch) || stands_at >= sequence {
            return Some(());
        }
        let mut told = false;
        if command.parts.is_empty() {
            told = self.run(database, number);
        } else {
            let (_, known) = serving.open.take().filter(|(opened, _)| *opened == lane)?;
            if !database.knows(command.id) {
                let ran: Vec<u8> =
                    command.parts.iter().copied().filter(|part| !known.contains(part)).collect();
                let is_known = ran.iter().any(|part| database.ledger.contains(part));
                if is_known && !self.has(Defect::BatchAsksTwice) {
                    // The ledger's key refuses it: the batch is rolled back, and run again.
                    serving.queues[usize::from(lane)].insert(0, (sequence, message));
                    state.workers[usize::from(worker)] = Some(serving);
                    return Some(());
                }
                let effects = ran.iter().map(|&id| Effect { id, command: number });
                database.effects.extend(effects);
                for part in ran.into_iter().chain([command.id]) {
                    record(database, part);
                }
                told = true;
            }
        }
        database.lanes[usize::from(lane)] = LaneRow { position: sequence, proof: Some(message) };
        database.lsn += self.commits();
        if told && self.world.has_bookmarks() {
            tell(state, server, serving.epoch, command.id);
        }
        state.workers[usize::from(worker)] = Some(serving);
        Some(())
    }

    /// One command of the stream; whether it ran.
    fn run(&self, database: &mut Database, number: u8) -> bool {
        let command = self.command(number);
        let is_known = database.knows(command.id) && !self.has(Defect::NoLedger);
        if is_known || database.parked.contains(&number) {
            return false;
        }
        let is_parked = database.parked.iter().any(|&parked| {
            let is_seen = self.lane_of(parked) == self.lane_of(number);
            self.command(parked).id == command.id && (is_seen || !self.has(Defect::WaitingUnseen))
        });
        if is_parked {
            // Rejected: the first one keeps the id.
            return false;
        }
        let is_behind =
            database.parked.iter().any(|&parked| self.command(parked).key == command.key);
        if command.waits || is_behind {
            database.parked.push(number);
            return false;
        }
        apply(database, command.id, number);
        true
    }

    /// A command that is due, the first of its key.
    fn retry(&self, state: &mut State, worker: u8, number: u8) -> Option<()> {
        let serving = state.workers[usize::from(worker)].clone()?;
        let database = state.database_mut(serving.server)?;
        let command = self.command(number);
        let first = database.parked.iter().find(|&&it| self.command(it).key == command.key)?;
        if *first != number || database.owner() != Some(serving.epoch) {
            return None;
        }
        database.parked.retain(|&parked| parked != number);
        database.lsn += self.commits();
        if !database.knows(command.id) {
            apply(database, command.id, number);
            if self.world.has_bookmarks() {
                tell(state, serving.server, serving.epoch, command.id);
            }
        }
        Some(())
    }

    /// A lane with nothing to do goes on to where the reader is.
    fn move_along(&self, state: &mut State, worker: u8, lane: u8) -> Option<()> {
        let serving = state.workers[usize::from(worker)].clone()?;
        let database = state.database_mut(serving.server)?;
        let row = &mut database.lanes[usize::from(lane)];
        let LaneRow { position, proof } = serving.read_to;
        if !serving.queues[usize::from(lane)].is_empty() || position <= row.position {
            return None;
        }
        *row = LaneRow { position, proof: proof.filter(|_| !self.has(Defect::NoProof)) };
        (database.owner() == Some(serving.epoch)).then_some(())
    }

    /// The ledger drops its lowest id, once nothing that was read may still bring it: it is refused then.
    fn forget(&self, state: &mut State) -> Option<()> {
        spend(&mut state.left.days)?;
        let is_settled = state.primary.low_water() == state.stream.last().position;
        let database = &mut state.primary;
        if !is_settled || !database.parked.is_empty() || database.ledger.is_empty() {
            return None;
        }
        let dropped = database.ledger.remove(0);
        database.forgotten = dropped;
        if !self.has(Defect::NoHorizon) {
            database.horizon = dropped;
        }
        Some(())
    }

    /// An operator says that the stream is the one to go on with, from its first message.
    fn adopt(&self, state: &mut State) -> Option<()> {
        spend(&mut state.left.adoptions)?;
        let serves = |worker: &Serving| worker.server == Server::Primary;
        if state.workers.iter().flatten().any(serves) {
            return None;
        }
        let first = LaneRow { position: state.stream.trimmed, proof: None };
        state.primary.lanes.fill(first);
        state.primary.refused = false;
        Some(())
    }

    /// What every lane has passed, here and on the replica, is trimmed.
    fn trim(&self, state: &mut State) -> Option<()> {
        spend(&mut state.left.trims)?;
        let mut to = state.primary.low_water().min(state.stream.last().position);
        if !self.has(Defect::TrimsAhead) {
            to = to.min(state.replica.as_ref()?.low_water());
        }
        let is_news = to > state.stream.trimmed;
        state.stream.trimmed = to;
        is_news.then_some(())
    }
}

fn take_from_air(state: &mut State, command: u8) -> Option<()> {
    let place = state.air.iter().position(|&it| it == command)?;
    state.air.remove(place);
    Some(())
}

fn record(database: &mut Database, id: u8) {
    if let Err(place) = database.ledger.binary_search(&id) {
        database.ledger.insert(place, id);
    }
}

fn apply(database: &mut Database, id: u8, command: u8) {
    database.effects.push(Effect { id, command });
    record(database, id);
}

/// A caller is told, with a bookmark of the commit.
fn tell(state: &mut State, server: Server, epoch: u8, id: u8) {
    let Some(Database { cluster, timeline, lsn, .. }) = state.database(server).cloned() else {
        return;
    };
    state.told.push(Told { id, epoch, timeline, lsn, cluster });
}

/// The replica becomes the primary. What it lacks is lost, and who worked on the primary begins again.
fn fail_over(state: &mut State) -> Option<()> {
    spend(&mut state.left.failovers)?;
    let replica = state.replica.take()?;
    let timeline = replica.timeline + 1;
    state.primary = Database { timeline, promoted_at: Some(replica.lsn), ..replica };
    for worker in &mut state.workers {
        worker.take_if(|worker| worker.server == Server::Primary);
    }
    Some(())
}
