//! What may happen next.

use std::fmt;

use crate::{
    state::{Call, Server, State},
    world::World,
};

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "said by how each is printed")]
pub enum Step {
    Publish { command: u8 },
    Resend { command: u8 },
    Drop { command: u8 },
    Land { command: u8 },
    Lose { command: u8 },
    Acknowledge { command: u8 },
    TakeOver { worker: u8, server: Server },
    Read { worker: u8 },
    Begin { worker: u8, lane: u8 },
    Commit { worker: u8, lane: u8 },
    MoveAlong { worker: u8, lane: u8 },
    Retry { worker: u8, command: u8 },
    Crash { worker: u8 },
    Replicate,
    FailOver,
    LoseTail { keeps: u8 },
    Forget,
    Adopt,
    Copy,
    Write { server: Server },
    Trim,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |server: &Server| match server {
            Server::Primary => "the primary",
            Server::Copy => "the copy",
        };
        match self {
            Self::Publish { command } => write!(f, "an app publishes command {command}"),
            Self::Resend { command } => write!(f, "command {command} is sent again"),
            Self::Drop { command } => write!(f, "the call of command {command} is dropped"),
            Self::Land { command } => write!(f, "the broker stores command {command}"),
            Self::Lose { command } => write!(f, "the message of command {command} is lost"),
            Self::Acknowledge { command } => {
                write!(f, "the producer learns that command {command} is stored")
            }
            Self::TakeOver { worker, server } => {
                write!(f, "worker {worker} takes over {}", name(server))
            }
            Self::Read { worker } => write!(f, "worker {worker} reads the stream"),
            Self::Begin { worker, lane } => {
                write!(f, "lane {lane} of worker {worker} begins an atomic batch")
            }
            Self::Commit { worker, lane } => write!(f, "lane {lane} of worker {worker} commits"),
            Self::MoveAlong { worker, lane } => {
                write!(f, "lane {lane} of worker {worker} is moved along")
            }
            Self::Retry { worker, command } => {
                write!(f, "worker {worker} tries command {command} again")
            }
            Self::Crash { worker } => write!(f, "worker {worker} dies"),
            Self::Replicate => write!(f, "the replica catches up"),
            Self::FailOver => write!(f, "the primary is lost, and the replica is promoted"),
            Self::LoseTail { keeps } => write!(f, "the broker loses all but {keeps} messages"),
            Self::Forget => write!(f, "the ledger drops its oldest day"),
            Self::Adopt => write!(f, "an operator adopts the stream from its first message on"),
            Self::Copy => write!(f, "the database is copied to another cluster"),
            Self::Write { server } => write!(f, "somebody else writes into {}", name(server)),
            Self::Trim => write!(f, "the stream is trimmed"),
        }
    }
}

/// Steps that may be possible; the protocol says which are.
pub(crate) fn candidates(world: &World, state: &State, steps: &mut Vec<Step>) {
    for command in (0..).take(world.commands.len()) {
        let call = state.calls[usize::from(command)];
        let is_out = matches!(call, Call::Out | Call::Dropped);
        match call {
            Call::ToCome => steps.push(Step::Publish { command }),
            Call::Out => steps.push(Step::Drop { command }),
            Call::Dropped | Call::Known => {}
        }
        if is_out {
            steps.extend([Step::Resend { command }, Step::Acknowledge { command }]);
        }
        if state.air.contains(&command) {
            steps.extend([Step::Land { command }, Step::Lose { command }]);
        }
    }
    for worker in 0..world.workers {
        let Some(serving) = &state.workers[usize::from(worker)] else {
            steps.push(Step::TakeOver { worker, server: Server::Primary });
            steps.push(Step::TakeOver { worker, server: Server::Copy });
            continue;
        };
        steps.extend([Step::Read { worker }, Step::Crash { worker }]);
        for lane in 0..world.lanes {
            steps.extend([
                Step::Begin { worker, lane },
                Step::Commit { worker, lane },
                Step::MoveAlong { worker, lane },
            ]);
        }
        if let Some(database) = state.database(serving.server) {
            let parked = database.parked.iter();
            steps.extend(parked.map(|&command| Step::Retry { worker, command }));
        }
    }
    for keeps in state.stream.trimmed..u8::try_from(state.stream.messages.len()).unwrap_or(0) {
        steps.push(Step::LoseTail { keeps });
    }
    steps.extend([
        Step::Replicate,
        Step::FailOver,
        Step::Forget,
        Step::Adopt,
        Step::Copy,
        Step::Write { server: Server::Primary },
        Step::Write { server: Server::Copy },
        Step::Trim,
    ]);
}
