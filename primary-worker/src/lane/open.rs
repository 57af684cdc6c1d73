//! A lane's state, and opening the lanes of a takeover.

use std::time::Instant;

use sqlx::PgConnection;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    apply::{fence::Fence, functions::Functions, item::BatchItem},
    store::lanes::LaneKey,
    stream::{position::StreamPosition, sink::Verified},
};

use super::{
    batch::Source,
    context::LaneContext,
    queue::{Dispatcher, Queued, ReadTo},
    settle::Settler,
};

/// One lane.
pub(crate) struct Lane {
    pub(super) number: u32,
    pub(super) shared: LaneContext,
    pub(super) functions: Functions,
    pub(super) connection: PgConnection,
    pub(super) queue: mpsc::Receiver<Queued>,
    pub(super) read_to: ReadTo,
    pub(super) position: StreamPosition,
    pub(super) settler: Settler,
    pub(super) stop: CancellationToken,
    /// Whether anything of this lane is parked or paused, as far as is known.
    pub(super) waits: bool,
    /// When the lane looks at what waits.
    pub(super) look_at: Instant,
    /// How many more commands run alone, after an unclean end: of the stream, and of the parked ones.
    /// They are counted apart, since commands of one kind may always be tried before the other.
    pub(super) careful_stream: usize,
    pub(super) careful_parked: usize,
    /// Whether it has a turn to run a suspect in. What it runs meanwhile, to make room, is in that turn.
    pub(super) has_turn: bool,
    /// Whether the last batch had rejections, so that the next begins guarded.
    pub(super) guarded: bool,
    /// How many commands to offer to a guarded attempt.
    pub(super) offered_max: usize,
}

/// Makes the lanes of a takeover over their connections, and what hands messages to them.
pub(crate) fn open(
    shared: &LaneContext,
    connections: Vec<PgConnection>,
    stop: &CancellationToken,
    stream: &Verified,
    name: &str,
) -> (Dispatcher, Vec<Lane>) {
    let read_to = ReadTo::new(shared.takeover.progress, connections.len());
    let (read_by, memory) = (stream.clone(), shared.memory.clone());
    let mut dispatcher =
        Dispatcher::new(read_to.clone(), read_by, memory, shared.health.clone(), name.to_owned());
    let before = shared.takeover.lanes.iter().zip(connections).enumerate();
    let careful = if shared.takeover.unclean { shared.config.batch_max_commands } else { 0 };
    let lanes = before.map(|(number, (lane, connection))| Lane {
        number: u32::try_from(number).unwrap_or(u32::MAX),
        shared: shared.clone(),
        functions: Functions::default(),
        connection,
        queue: dispatcher.add(),
        read_to: read_to.clone(),
        position: lane.position,
        settler: Settler::new(shared),
        stop: stop.clone(),
        waits: true,
        look_at: Instant::now(),
        careful_stream: careful,
        careful_parked: careful,
        has_turn: false,
        guarded: false,
        offered_max: shared.config.batch_max_commands,
    });
    let lanes = lanes.collect();
    (dispatcher, lanes)
}

impl Lane {
    /// Where the lane stands when a batch is done.
    pub(super) fn end_of_batch(&self, source: Source) -> StreamPosition {
        match source {
            Source::Stream { end } => end,
            Source::Parked => self.position,
        }
    }

    /// Where the lane stands when an item, and not the last of its batch, is done.
    pub(super) fn position_after(&self, item: &BatchItem) -> StreamPosition {
        if item.parked.is_some() { self.position } else { item.delivery.position() }
    }

    /// How many more commands from there run alone, after an unclean end.
    pub(super) fn careful(&mut self, source: Source) -> &mut usize {
        match source {
            Source::Stream { .. } => &mut self.careful_stream,
            Source::Parked => &mut self.careful_parked,
        }
    }

    /// The lane's right to move on from where it stands.
    pub(super) fn fence(&self, to: StreamPosition) -> Fence {
        let takeover = &self.shared.takeover;
        Fence {
            stream_id: takeover.stream_id,
            epoch: takeover.epoch,
            lane: self.number,
            from: self.position.sequence,
            to,
        }
    }

    /// The lane's row, under the takeover's epoch.
    pub(super) fn key(&self) -> LaneKey {
        let takeover = &self.shared.takeover;
        LaneKey { stream_id: takeover.stream_id, lane: self.number, epoch: takeover.epoch }
    }
}
