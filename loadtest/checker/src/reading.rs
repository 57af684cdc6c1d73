//! The reader of a history: a line at a time, and an error names its line.

use std::{collections::HashMap, io::BufRead};

use anyhow::{Context, Result, bail, ensure};
use uuid::Uuid;

use crate::{
    history::{
        CommandAnswer, CommandFate, Effect, Fault, History, HistoryCommand, HistoryMoment,
        HistoryRead, SeenEffects,
    },
    lines::{
        CommandEnded, CommandStart, FinalRow, HistoryEvent, HistoryHeader, HistoryLine, ReadEnded,
        ReadStart, VERSION,
    },
    names::{Name, NameTable},
};

impl History {
    /// Reads a history to its end.
    ///
    /// # Errors
    /// When a line is not of the form, contradicts an earlier one, or the last one is missing.
    pub fn read(mut source: impl BufRead) -> Result<Self> {
        let mut reader = HistoryReader::default();
        let (mut text, mut number) = (String::new(), 0);
        loop {
            text.clear();
            number += 1;
            let place = || format!("line {number}");
            if source.read_line(&mut text).with_context(place)? == 0 {
                break;
            }
            if !text.trim().is_empty() {
                reader.take(number, text.trim_end()).with_context(place)?;
            }
        }
        reader.history(number - 1)
    }
}

/// Which operation a number stands for.
#[derive(Clone, Copy)]
enum OperationIndex {
    Command(usize),
    Read(usize),
}

#[derive(Default)]
struct HistoryReader {
    header: Option<(u64, String)>,
    names: NameTable,
    ops: HashMap<u64, OperationIndex>,
    commands: Vec<HistoryCommand>,
    reads: Vec<HistoryRead>,
    numbers: HashMap<Uuid, usize>,
    fates: Vec<CommandFate>,
    superseded: Vec<(Name, HistoryMoment)>,
    faults: Vec<Fault>,
    messages: u64,
    /// The end state has begun.
    is_settled: bool,
    is_complete: bool,
}

impl HistoryReader {
    fn take(&mut self, number: u64, text: &str) -> Result<()> {
        ensure!(!self.is_complete, "something follows the last line");
        let line = HistoryLine::parse(text)?;
        let is_header = matches!(line, HistoryLine::Header(_));
        ensure!(is_header == self.header.is_none(), "a history has one header, in its first line");
        let is_final = matches!(line, HistoryLine::Final(_));
        ensure!(is_final || !self.is_settled, "something happens after the end state was taken");
        self.is_settled = is_final;
        let at = |t_us| HistoryMoment { t_us, line: number };
        match line {
            HistoryLine::Header(header) => self.begin(&header),
            HistoryLine::Command(start) => self.start_command(at(start.t_us), &start),
            HistoryLine::CommandEnd(ended) => self.end_command(at(ended.t_us), &ended),
            HistoryLine::Read(start) => self.start_read(at(start.t_us), &start),
            HistoryLine::ReadEnd(ReadEnded::Read { t_us, op, n, last }) => {
                self.end_read(at(t_us), op, Some(SeenEffects { n, last }))
            }
            HistoryLine::ReadEnd(ReadEnded::Failed { t_us, op }) => {
                self.end_read(at(t_us), op, None)
            }
            HistoryLine::Event(event) => {
                self.note_event(event, at);
                Ok(())
            }
            HistoryLine::Final(row) => {
                self.note_final(&row);
                Ok(())
            }
        }
    }

    fn begin(&mut self, header: &HistoryHeader<'_>) -> Result<()> {
        let version = header.farwrite_history;
        ensure!(version == VERSION, "a history of version {version}; {VERSION} is known");
        self.header = Some((header.seed, header.started.clone().into_owned()));
        Ok(())
    }

    fn start_command(&mut self, start: HistoryMoment, line: &CommandStart<'_>) -> Result<()> {
        self.claim(line.op, OperationIndex::Command(self.commands.len()))?;
        let fate = self.fate(line.id);
        self.fates[fate].commands.push(self.commands.len());
        let [client, region, key] =
            [&line.client, &line.region, &line.key].map(|text| self.names.name(text));
        let (op, verb) = (line.op, line.start);
        self.commands.push(HistoryCommand {
            op,
            verb,
            client,
            region,
            fate,
            key,
            start,
            end: None,
        });
        Ok(())
    }

    fn start_read(&mut self, start: HistoryMoment, line: &ReadStart<'_>) -> Result<()> {
        self.claim(line.op, OperationIndex::Read(self.reads.len()))?;
        let [client, region, key] =
            [&line.client, &line.region, &line.key].map(|text| self.names.name(text));
        let (op, bookmark) = (line.op, line.bookmark);
        let (end, seen) = (None, None);
        self.reads.push(HistoryRead { op, client, region, key, bookmark, start, end, seen });
        Ok(())
    }

    fn end_command(&mut self, at: HistoryMoment, line: &CommandEnded) -> Result<()> {
        let op = line.op;
        let Some(OperationIndex::Command(index)) = self.ops.get(&op) else {
            bail!("no command {op} began")
        };
        let command = &mut self.commands[*index];
        ensure!(command.end.is_none(), "command {op} ends twice");
        ensure!(command.start < at, "command {op} ends before it begins");
        command.end = Some(CommandAnswer { at, end: line.end, visible: line.visible });
        Ok(())
    }

    fn end_read(&mut self, at: HistoryMoment, op: u64, seen: Option<SeenEffects>) -> Result<()> {
        let Some(OperationIndex::Read(index)) = self.ops.get(&op) else {
            bail!("no read {op} began")
        };
        let read = &mut self.reads[*index];
        ensure!(read.end.is_none(), "read {op} ends twice");
        ensure!(read.start < at, "read {op} ends before it begins");
        (read.end, read.seen) = (Some(at), seen);
        Ok(())
    }

    fn note_event(&mut self, event: HistoryEvent<'_>, at: impl Fn(u64) -> HistoryMoment) {
        match event {
            HistoryEvent::Superseded { t_us, client } => {
                self.superseded.push((self.names.name(&client), at(t_us)));
            }
            HistoryEvent::Fault { t_us, kind, .. } => {
                let kind = kind.into_owned();
                self.faults.push(Fault { kind, began: at(t_us), healed: None });
            }
            HistoryEvent::Healed { t_us, kind, .. } => {
                let mut open = self.faults.iter_mut().filter(|fault| fault.healed.is_none());
                match kind {
                    Some(kind) => {
                        if let Some(fault) = open.find(|fault| fault.kind == kind) {
                            fault.healed = Some(at(t_us));
                        }
                    }
                    None => open.for_each(|fault| fault.healed = Some(at(t_us))),
                }
            }
        }
    }

    fn note_final(&mut self, row: &FinalRow<'_>) {
        match row {
            FinalRow::Outcome { id, outcome } => {
                let fate = self.fate(*id);
                self.fates[fate].outcomes.push(*outcome);
            }
            FinalRow::Effect { key, n, id } => {
                let (fate, key) = (self.fate(*id), self.names.name(key));
                self.fates[fate].effects.push(Effect { key, n: *n });
            }
            FinalRow::Message { sequence, id, .. } => {
                let fate = self.fate(*id);
                let first = &mut self.fates[fate].sequence;
                *first = Some(first.map_or(*sequence, |first| first.min(*sequence)));
                self.messages += 1;
            }
            FinalRow::End => self.is_complete = true,
        }
    }

    fn claim(&mut self, number: u64, op: OperationIndex) -> Result<()> {
        ensure!(self.ops.insert(number, op).is_none(), "operation {number} begins twice");
        Ok(())
    }

    fn fate(&mut self, id: Uuid) -> usize {
        *self.numbers.entry(id).or_insert_with(|| {
            let (commands, outcomes, effects) = (Vec::new(), Vec::new(), Vec::new());
            self.fates.push(CommandFate { id, commands, outcomes, effects, sequence: None });
            self.fates.len() - 1
        })
    }

    fn history(self, lines: u64) -> Result<History> {
        let (seed, started) = self.header.context("the history is empty")?;
        ensure!(
            self.is_complete,
            "the history is incomplete: it has {lines} lines, and the last is not {{\"final\":\"end\"}}"
        );
        let Self { names, commands, reads, fates, superseded, faults, messages, .. } = self;
        Ok(History {
            seed,
            started,
            lines,
            names,
            commands,
            reads,
            fates,
            superseded,
            faults,
            messages,
        })
    }
}
