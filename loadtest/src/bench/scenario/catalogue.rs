//! The scenarios, by name.

use anyhow::Result;
use farwrite_devstack::Devstack;

use super::{
    flow, full_streams, growth, paces, publish,
    settings::{BenchSettings, ScenarioFindings},
    slow_disk, waiters, wake_up, write,
};

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

    pub(in crate::bench) async fn run(self, settings: &BenchSettings) -> Result<ScenarioFindings> {
        match self {
            Self::Drain => full_streams::functions(settings).await,
            Self::DrainRust => full_streams::rust(settings).await,
            Self::Rejects => full_streams::rejects(settings).await,
            Self::ManyHandlers => full_streams::many_handlers(settings).await,
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

/// The servers alone, to ask them.
pub(in crate::bench) async fn servers() -> Result<Devstack> {
    Devstack::builder().start().await
}
