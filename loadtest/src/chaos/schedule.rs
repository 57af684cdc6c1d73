//! The schedules: what clients do, which faults there are, and how soon one follows another.

use std::ops::Range;

use super::fault::{FaultKind, FaultTrack};

/// A schedule. A seed draws its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// All faults that end without an operator; clients call every verb.
    Everything,
    /// Users hop between regions and read at their bookmark, while replicas are held and crashed,
    /// links cut and the worker killed. A fault follows the last one soon.
    Hopping,
}

/// Of a hundred calls of a client, so many; the others read.
#[derive(Clone, Copy, Debug)]
pub(super) struct CallShares {
    pub(super) publish: u32,
    pub(super) submit: u32,
    pub(super) write: u32,
    /// Of a hundred reads, so many go without a bookmark.
    pub(super) unbound_reads: u32,
}

impl Schedule {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Everything, Self::Hopping];

    /// As the flag has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Everything => "everything",
            Self::Hopping => "hopping",
        }
    }

    /// The schedule of that name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|schedule| schedule.as_str() == name)
    }

    pub(super) fn faults(self) -> Vec<FaultKind> {
        match self {
            Self::Everything => FaultKind::ALL
                .into_iter()
                .filter(|kind| *kind != FaultKind::BrokerRestore)
                .collect(),
            Self::Hopping => vec![
                FaultKind::WorkerKill,
                FaultKind::ReplicaPause,
                FaultKind::ReplicaKill,
                FaultKind::ReplicationCut,
                FaultKind::ConnectionDrop,
            ],
        }
    }

    pub(super) const fn calls(self) -> CallShares {
        match self {
            Self::Everything => {
                CallShares { publish: 15, submit: 25, write: 25, unbound_reads: 25 }
            }
            Self::Hopping => CallShares { publish: 0, submit: 0, write: 20, unbound_reads: 0 },
        }
    }

    /// Between the end of a fault and the start of the next one of its track.
    pub(super) const fn calm_ms(self, track: FaultTrack) -> Range<u64> {
        match (self, track) {
            (Self::Everything, _) => 200..1_500,
            (Self::Hopping, FaultTrack::Servers) => 100..1_000,
            // Writes wait for a worker, and reads are what this schedule is for.
            (Self::Hopping, FaultTrack::Workers) => 1_000..8_000,
        }
    }
}
