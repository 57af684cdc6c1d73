//! What is measured, by name.

mod drain;
mod flow;
mod growth;
mod paces;
mod publish;
mod replay;
mod slow_disk;
mod waiters;
mod wake_up;
mod write;

use std::{io::IsTerminal, time::Duration};

use anyhow::Result;
use farwrite_devstack::Devstack;

pub(super) use waiters::{Weighed, weigh};

use super::report::{Latencies, Row, Timeline};

/// How long and how often.
#[derive(Clone, Debug)]
pub(in crate::bench) struct Settings {
    /// How long one contestant runs in one round, where a scenario goes by time.
    pub(in crate::bench) seconds: u64,
    /// How often contestants alternate; seven or more make a median that targets are judged by.
    pub(in crate::bench) rounds: usize,
    /// The round trip of the far region.
    pub(in crate::bench) rtt: Duration,
    /// Commands in a stream that is drained; some scenarios take a part of them.
    pub(in crate::bench) commands: u64,
}

impl Settings {
    /// The rounds, each told on a terminal when it begins.
    pub(super) fn rounds(&self) -> impl Iterator<Item = usize> + use<> {
        let (rounds, shows) = (self.rounds, std::io::stderr().is_terminal());
        (0..rounds).inspect(move |round| {
            if shows {
                eprint!("\r  round {} of {rounds} ", round + 1);
            }
        })
    }

    pub(super) const fn turn(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

/// What a scenario found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) rows: Vec<Row>,
    pub(super) latencies: Vec<Latencies>,
    pub(super) timeline: Option<Timeline>,
}

/// A scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::bench) enum Scenario {
    /// A full stream, applied by a function of the database.
    Drain,
    /// The same, applied by a handler in Rust.
    DrainRust,
    /// The same with commands that are refused.
    Rejects,
    /// The same under many names.
    ManyHandlers,
    /// The same with a slow disk.
    SlowDisk,
    /// A large ledger, and a large backlog.
    Growth,
    /// Published and applied at once.
    Flow,
    /// Acknowledged publishes.
    Publish,
    /// The same on a broker that syncs every message.
    PublishCoalesced,
    /// From the call to its visibility in the region.
    Write,
    /// From the replay to the waiter.
    WakeUp,
    /// What a waiter weighs.
    Waiters,
    /// What polling costs, by its interval.
    Paces,
}

impl Scenario {
    /// All, in their order.
    pub(in crate::bench) const ALL: [Self; 13] = [
        Self::Drain,
        Self::DrainRust,
        Self::Rejects,
        Self::ManyHandlers,
        Self::SlowDisk,
        Self::Growth,
        Self::Flow,
        Self::Publish,
        Self::PublishCoalesced,
        Self::Write,
        Self::WakeUp,
        Self::Waiters,
        Self::Paces,
    ];

    /// As the command line says it.
    #[must_use]
    pub(in crate::bench) const fn name(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::DrainRust => "drain-rust",
            Self::Rejects => "rejects",
            Self::ManyHandlers => "many-handlers",
            Self::SlowDisk => "slow-disk",
            Self::Growth => "growth",
            Self::Flow => "flow",
            Self::Publish => "publish",
            Self::PublishCoalesced => "publish-coalesced",
            Self::Write => "write",
            Self::WakeUp => "wake-up",
            Self::Waiters => "waiters",
            Self::Paces => "paces",
        }
    }

    /// By its name.
    #[must_use]
    pub(in crate::bench) fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scenario| scenario.name() == name)
    }

    pub(super) async fn run(self, settings: &Settings) -> Result<Findings> {
        match self {
            Self::Drain => drain::functions(settings).await,
            Self::DrainRust => drain::rust(settings).await,
            Self::Rejects => drain::rejects(settings).await,
            Self::ManyHandlers => drain::many_handlers(settings).await,
            Self::SlowDisk => slow_disk::run(settings).await,
            Self::Growth => growth::run(settings).await,
            Self::Flow => flow::run(settings).await,
            Self::Publish => publish::run(settings).await,
            Self::PublishCoalesced => publish::coalesced(settings).await,
            Self::Write => write::run(settings).await,
            Self::WakeUp => wake_up::run().await,
            Self::Waiters => waiters::run().await,
            Self::Paces => paces::run().await,
        }
    }
}

/// Body sizes that are measured.
const BODY_BYTES: [usize; 2] = [256, 2_048];
/// Where there is one size.
const SMALL: usize = BODY_BYTES[0];

/// The servers alone, to ask them.
pub(super) async fn servers() -> Result<Devstack> {
    Devstack::builder().start().await
}
