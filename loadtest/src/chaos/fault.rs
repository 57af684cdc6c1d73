//! The faults, by kind, and the track that each belongs to.

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// A worker is killed, and begun again.
    WorkerKill,
    /// A worker is stopped for longer than its lease, and woken.
    WorkerStop,
    /// A worker is asked to stop, and another begun: a rolling deploy, with another number of lanes.
    WorkerDeploy,
    /// A worker takes over from one that works: for a moment two believe that they are active.
    WorkerForced,
    /// The broker is killed, and begun again.
    BrokerKill,
    /// The broker stands still in pulses.
    BrokerStall,
    /// A region's links to the broker and the primary are cut.
    WanCut,
    /// A region's links are slow.
    WanSlow,
    /// A replica does not replay.
    ReplicaPause,
    /// A replica is killed, and begun again.
    ReplicaKill,
    /// A replica's link to the primary is cut.
    ReplicationCut,
    /// A region's connections to the broker end.
    ConnectionDrop,
    /// The links of a region, or of the workers, forget their connections: neither side is told.
    ConnectionForget,
    /// A standby that lags is promoted, and the primary lost.
    Failover,
    /// Another session holds a transaction open on the primary, with rows of the app locked.
    LongTransaction,
    /// The producers' clock jumps by hours.
    ClockJump,
    /// The broker comes back with an older copy of its store and uses sequences again: the worker
    /// stops, and an operator adopts the stream.
    BrokerRestore,
}

/// Faults of one track follow each other; the tracks run beside each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FaultTrack {
    Workers,
    Servers,
}

impl FaultKind {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::WorkerKill,
        Self::WorkerStop,
        Self::WorkerDeploy,
        Self::WorkerForced,
        Self::BrokerKill,
        Self::BrokerStall,
        Self::WanCut,
        Self::WanSlow,
        Self::ReplicaPause,
        Self::ReplicaKill,
        Self::ReplicationCut,
        Self::ConnectionDrop,
        Self::ConnectionForget,
        Self::Failover,
        Self::LongTransaction,
        Self::ClockJump,
        Self::BrokerRestore,
    ];

    /// As flags and reports have it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WorkerKill => "worker_kill",
            Self::WorkerStop => "worker_stop",
            Self::WorkerDeploy => "worker_deploy",
            Self::WorkerForced => "worker_forced",
            Self::BrokerKill => "broker_kill",
            Self::BrokerStall => "broker_stall",
            Self::WanCut => "wan_cut",
            Self::WanSlow => "wan_slow",
            Self::ReplicaPause => "replica_pause",
            Self::ReplicaKill => "replica_kill",
            Self::ReplicationCut => "replication_cut",
            Self::ConnectionDrop => "connection_drop",
            Self::ConnectionForget => "connection_forget",
            Self::Failover => "failover",
            Self::LongTransaction => "long_transaction",
            Self::ClockJump => "clock_jump",
            Self::BrokerRestore => "broker_restore",
        }
    }

    /// The kind of that name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    pub(super) const fn track(self) -> FaultTrack {
        match self {
            Self::WorkerKill | Self::WorkerStop | Self::WorkerDeploy | Self::WorkerForced => {
                FaultTrack::Workers
            }
            Self::BrokerKill
            | Self::BrokerStall
            | Self::WanCut
            | Self::WanSlow
            | Self::ReplicaPause
            | Self::ReplicaKill
            | Self::ReplicationCut
            | Self::ConnectionDrop
            | Self::ConnectionForget
            | Self::Failover
            | Self::LongTransaction
            | Self::ClockJump
            | Self::BrokerRestore => FaultTrack::Servers,
        }
    }
}
