//! A small model of Farwrite, whose histories are good. A primary applies a stream in order, and
//! replicas follow. Clients send, wait, read, are killed and change their region.
//!
//! With faults, a replica that crashes goes back, and a failover makes a replica the primary.
//! Commits after its position are lost, and applied again from the stream.

use std::{
    collections::HashMap,
    io::{self, Write},
    sync::{Arc, Mutex},
};

use farwrite_checker::{
    Begun, CommandEnd, CommandOp, HistoryOutcome, HistoryVerb, HistoryWriter, ReadOp,
};
use fastrand::Rng;
use serde_json::json;
use uuid::Uuid;

use super::Lines;

const REGIONS: [&str; 3] = ["home", "far", "near"];
const KEYS: usize = 3;
const CLIENTS: usize = 5;

/// A good history.
pub(super) fn good(seed: u64, steps: usize, faults: bool) -> Lines {
    let page = Page::default();
    let writer = HistoryWriter::new(page.clone(), seed, "2026-01-01T00:00:00Z").unwrap();
    let mut model = Model::new(Rng::with_seed(seed), writer);
    for _ in 0..steps {
        model.step(faults);
    }
    model.end();
    let bytes = page.0.lock().unwrap();
    let text = std::str::from_utf8(&bytes).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A command, as the stream holds it.
#[derive(Clone, Copy)]
struct Message {
    id: Uuid,
    key: usize,
    /// What becomes of it; None when that is chance, each time anew.
    nature: Option<HistoryOutcome>,
}

/// A commit of the primary.
#[derive(Clone, Copy)]
struct Commit {
    message: Message,
    outcome: HistoryOutcome,
    /// How much of the stream was applied with it.
    position: usize,
}

/// A place on a branch of history: how many commits.
#[derive(Clone, Copy)]
struct Bookmark {
    branch: usize,
    commits: usize,
}

enum Doing {
    Nothing,
    Sending { op: Begun<CommandOp>, verb: HistoryVerb, message: Message, is_stored: bool },
    Seeing { op: Begun<CommandOp>, bookmark: Bookmark },
    Reading { op: Begun<ReadOp>, key: usize, bookmark: Option<Bookmark>, waited: u32 },
    Read { op: Begun<ReadOp>, n: u64, last: Option<Uuid>, bookmark: Bookmark },
}

struct Client {
    name: String,
    region: usize,
    doing: Doing,
    bookmark: Option<Bookmark>,
    /// What it may send again.
    unresolved: Option<Message>,
}

enum Disturbed {
    No,
    Failover { to: usize, happened: bool },
    Crash { of: usize, happened: bool },
}

struct Model {
    random: Rng,
    writer: HistoryWriter,
    stream: Vec<Message>,
    /// On their way into the stream, while nobody waits any more.
    late: Vec<Message>,
    position: usize,
    commits: Vec<Commit>,
    ledger: HashMap<Uuid, usize>,
    /// How many commits each replica shows; the first is the primary's own region.
    shown: [usize; 3],
    /// With how many commits each failover began a branch.
    forks: Vec<usize>,
    clients: Vec<Client>,
    disturbed: Disturbed,
}

impl Model {
    fn new(random: Rng, writer: HistoryWriter) -> Self {
        let client = |n| Client {
            name: format!("{}-{n}", REGIONS[n % 3]),
            region: n % 3,
            doing: Doing::Nothing,
            bookmark: None,
            unresolved: None,
        };
        Self {
            random,
            writer,
            stream: Vec::new(),
            late: Vec::new(),
            position: 0,
            commits: Vec::new(),
            ledger: HashMap::new(),
            shown: [0; 3],
            forks: Vec::new(),
            clients: (0..CLIENTS).map(client).collect(),
            disturbed: Disturbed::No,
        }
    }

    fn step(&mut self, faults: bool) {
        match self.random.u32(..100) {
            0..30 => self.apply(),
            30..50 => self.replay(),
            50..52 => self.store_late(),
            52..56 if faults => self.disturb(),
            _ => {
                let index = self.random.usize(..CLIENTS);
                self.advance(index);
            }
        }
    }

    fn apply(&mut self) {
        let Some(message) = self.stream.get(self.position).copied() else { return };
        self.position += 1;
        if self.ledger.contains_key(&message.id) {
            return;
        }
        let chance =
            if self.random.bool() { HistoryOutcome::Applied } else { HistoryOutcome::Rejected };
        let outcome = message.nature.unwrap_or(chance);
        self.ledger.insert(message.id, self.commits.len());
        self.commits.push(Commit { message, outcome, position: self.position });
        self.shown[0] = self.commits.len();
    }

    fn replay(&mut self) {
        let replica = self.random.usize(1..3);
        self.shown[replica] = self.random.usize(self.shown[replica]..=self.commits.len());
    }

    fn store_late(&mut self) {
        if !self.late.is_empty() {
            let index = self.random.usize(..self.late.len());
            self.stream.push(self.late.swap_remove(index));
        }
    }

    fn disturb(&mut self) {
        match &mut self.disturbed {
            Disturbed::No if self.random.u32(..3) > 0 => {}
            Disturbed::No => {
                let of = self.random.usize(1..3);
                let (kind, disturbed) = match self.random.u32(..3) {
                    0 => ("failover", Disturbed::Failover { to: of, happened: false }),
                    _ => ("crash", Disturbed::Crash { of, happened: false }),
                };
                self.writer.fault(kind, REGIONS[of]).unwrap();
                self.disturbed = disturbed;
            }
            Disturbed::Crash { of, happened } if !*happened => {
                *happened = true;
                self.shown[*of] = self.random.usize(..=self.shown[*of]);
            }
            Disturbed::Failover { to, happened } if !*happened => {
                *happened = true;
                let fork = self.shown[*to];
                self.commits.truncate(fork);
                self.ledger.retain(|_, index| *index < fork);
                self.position = self.commits.last().map_or(0, |commit| commit.position);
                self.shown.iter_mut().for_each(|shown| *shown = fork.min(*shown));
                self.forks.push(fork);
            }
            Disturbed::Crash { of, .. } => {
                self.writer.healed("crash", REGIONS[*of]).unwrap();
                self.disturbed = Disturbed::No;
            }
            Disturbed::Failover { to, .. } => {
                self.writer.healed("failover", REGIONS[*to]).unwrap();
                self.disturbed = Disturbed::No;
            }
        }
    }

    fn is_lost(&self, bookmark: Bookmark) -> bool {
        self.forks.iter().skip(bookmark.branch).any(|fork| *fork < bookmark.commits)
    }

    /// What a client learns; a bookmark of a lost branch is given up, and with it the session.
    fn note(&mut self, index: usize, new: Bookmark) {
        let known = self.clients[index].bookmark;
        if self.is_lost(new) || known.is_some_and(|known| self.is_lost(known)) {
            self.writer.superseded(&self.clients[index].name).unwrap();
        }
        let kept = known.into_iter().chain([new]).filter(|bookmark| !self.is_lost(*bookmark));
        self.clients[index].bookmark = kept.max_by_key(|bookmark| bookmark.commits);
    }

    /// The next thing that happens to a client.
    fn advance(&mut self, index: usize) {
        let doing = std::mem::replace(&mut self.clients[index].doing, Doing::Nothing);
        self.clients[index].doing = match doing {
            Doing::Nothing => self.begin(index),
            Doing::Sending { op, verb, message, is_stored: false } => {
                self.send(index, op, verb, message)
            }
            Doing::Sending { op, verb, message, .. } => self.wait(index, op, verb, message),
            Doing::Seeing { op, bookmark } => self.see(index, op, bookmark),
            Doing::Reading { op, key, bookmark, waited } => {
                self.read(index, op, key, bookmark, waited)
            }
            Doing::Read { op, n, last, bookmark } => {
                self.writer.end_read(op, n, last).unwrap();
                self.note(index, bookmark);
                Doing::Nothing
            }
        };
    }

    fn begin(&mut self, index: usize) -> Doing {
        if self.random.u32(..4) == 0 {
            self.clients[index].region = self.random.usize(..3);
        }
        let key = self.random.usize(..KEYS);
        let client = &mut self.clients[index];
        let whom = (client.name.as_str(), REGIONS[client.region]);
        if self.random.u32(..5) < 3 {
            let bookmark = client.bookmark.filter(|_| self.random.u32(..3) > 0);
            let op = self.writer.start_read(whom, &format!("k{key}"), bookmark.is_some()).unwrap();
            return Doing::Reading { op, key, bookmark, waited: 0 };
        }
        let again = client.unresolved.take().filter(|_| self.random.u32(..3) > 0);
        let nature = match self.random.u32(..20) {
            0..13 => Some(HistoryOutcome::Applied),
            13..15 => Some(HistoryOutcome::Rejected),
            15 => Some(HistoryOutcome::Expired),
            16 => Some(HistoryOutcome::DeadLettered),
            _ => None,
        };
        let message = again.unwrap_or_else(|| Message {
            id: Uuid::from_u128(self.random.u128(..)),
            key,
            nature,
        });
        let verb =
            [HistoryVerb::Publish, HistoryVerb::Submit, HistoryVerb::Write][self.random.usize(..3)];
        let key = format!("k{}", message.key);
        let op = self.writer.start_command(verb, whom, message.id, &key, &json!({})).unwrap();
        Doing::Sending { op, verb, message, is_stored: false }
    }

    fn send(
        &mut self,
        index: usize,
        op: Begun<CommandOp>,
        verb: HistoryVerb,
        message: Message,
    ) -> Doing {
        let chance = self.random.u32(..40);
        if chance < 3 {
            self.writer.end_command(op, CommandEnd::Refused, false).unwrap();
            return Doing::Nothing;
        }
        if chance < 10 {
            // Nobody knows whether it is stored, nor when.
            match self.random.u32(..3) {
                0 => {}
                1 => self.late.push(message),
                _ => self.stream.push(message),
            }
            if self.random.bool() {
                self.writer.end_command(op, CommandEnd::Unknown, false).unwrap();
            }
            self.clients[index].unresolved = Some(message);
            return Doing::Nothing;
        }
        if chance < 13 {
            // The app dropped the call: before its message was out, or while it was.
            if self.random.bool() {
                self.stream.push(message);
            }
            self.writer.end_command(op, CommandEnd::Dropped, false).unwrap();
            return Doing::Nothing;
        }
        self.stream.push(message);
        Doing::Sending { op, verb, message, is_stored: true }
    }

    fn wait(
        &mut self,
        index: usize,
        op: Begun<CommandOp>,
        verb: HistoryVerb,
        message: Message,
    ) -> Doing {
        if verb == HistoryVerb::Publish || self.random.u32(..20) == 0 {
            self.writer.end_command(op, CommandEnd::Accepted, false).unwrap();
            return Doing::Nothing;
        }
        let Some(commit) = self.ledger.get(&message.id).copied() else {
            return Doing::Sending { op, verb, message, is_stored: true };
        };
        let outcome = self.commits[commit].outcome;
        let bookmark = Bookmark { branch: self.forks.len(), commits: commit + 1 };
        if verb == HistoryVerb::Write && outcome == HistoryOutcome::Applied {
            return Doing::Seeing { op, bookmark };
        }
        self.writer.end_command(op, outcome.into(), false).unwrap();
        self.note(index, bookmark);
        Doing::Nothing
    }

    fn see(&mut self, index: usize, op: Begun<CommandOp>, bookmark: Bookmark) -> Doing {
        if self.is_lost(bookmark) {
            self.writer.end_command(op, CommandEnd::Superseded, false).unwrap();
            return Doing::Nothing;
        }
        let is_shown = self.shown[self.clients[index].region] >= bookmark.commits;
        if !is_shown && self.random.u32(..20) > 0 {
            return Doing::Seeing { op, bookmark };
        }
        // Now and then a caller hears of the position, and not of the outcome.
        let end = match self.random.u32(..10) {
            0 if is_shown => CommandEnd::Accepted,
            _ => CommandEnd::Applied,
        };
        self.writer.end_command(op, end, is_shown).unwrap();
        self.note(index, bookmark);
        Doing::Nothing
    }

    fn read(
        &mut self,
        index: usize,
        op: Begun<ReadOp>,
        key: usize,
        bookmark: Option<Bookmark>,
        waited: u32,
    ) -> Doing {
        if bookmark.is_some_and(|bookmark| self.is_lost(bookmark)) {
            self.clients[index].bookmark = None;
            self.writer.superseded(&self.clients[index].name).unwrap();
            self.writer.fail_read(op).unwrap();
            return Doing::Nothing;
        }
        let commits = self.shown[self.clients[index].region];
        if bookmark.is_some_and(|bookmark| bookmark.commits > commits) {
            if waited < 10 {
                return Doing::Reading { op, key, bookmark, waited: waited + 1 };
            }
            self.writer.fail_read(op).unwrap();
            return Doing::Nothing;
        }
        let mut seen = self.commits[..commits].iter().filter(|commit| {
            commit.message.key == key && commit.outcome == HistoryOutcome::Applied
        });
        let (n, last) =
            (seen.clone().count() as u64, seen.next_back().map(|commit| commit.message.id));
        Doing::Read { op, n, last, bookmark: Bookmark { branch: self.forks.len(), commits } }
    }

    /// Lets all settle, and takes the end state.
    fn end(mut self) {
        while !matches!(self.disturbed, Disturbed::No) {
            self.disturb();
        }
        self.stream.append(&mut self.late);
        while self.position < self.stream.len() {
            self.apply();
        }
        self.shown = [self.commits.len(); 3];
        for index in 0..CLIENTS {
            // What was not stored when the model ended ends as it may; most end well.
            while !matches!(
                self.clients[index].doing,
                Doing::Nothing | Doing::Sending { is_stored: false, .. }
            ) {
                self.advance(index);
            }
        }
        let mut counts = [0; KEYS];
        for Commit { message, outcome, .. } in &self.commits {
            self.writer.outcome(message.id, *outcome).unwrap();
            if *outcome == HistoryOutcome::Applied {
                counts[message.key] += 1;
                let key = format!("k{}", message.key);
                self.writer.effect(&key, counts[message.key], message.id).unwrap();
            }
        }
        for (message, sequence) in self.stream.iter().zip(1..) {
            self.writer.message(sequence, message.id, &format!("k{}", message.key)).unwrap();
        }
        self.writer.finish().unwrap();
    }
}
