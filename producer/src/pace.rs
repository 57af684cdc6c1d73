//! Whether gathering pays on this connection: what was measured, and what follows.
//!
//! An atomic batch costs the server a fixed few milliseconds, synced or not: it is staged in files
//! of its own first. A single publish costs a broker that syncs every message one sync, and one
//! that does not almost nothing. So gathering multiplies the rate of the first and slows down the
//! second, and which one it is shows in how long publishes take when many are in flight: they wait
//! for each other's syncs.
//!
//! ```text
//! alone ── many in a row took longer than a batch of them would ──▶ gathering
//!   ▲                                                                  │
//!   │                                                  after many commands, lest a hiccup decide
//!   └── they did not ── probing: a few go alone, and are timed ◀───────┘
//!                          └── they did ──▶ gathering
//! ```
//!
//! A new connection may be one to another server, or to one that was set up anew: everything is
//! learnt again. Pure: clocks and counts come from outside.

use std::time::Duration;

/// When a producer gathers what waits into atomic batches of JetStream's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gather {
    /// Every command is published alone.
    Never,
    /// Where single publishes are measured to take longer than a batch of them would: in effect,
    /// under load, where the broker syncs every message.
    #[default]
    IfFaster,
    /// Whenever something waits, without measuring. Slower than `Never` on a broker that does not
    /// sync every message.
    Always,
}

/// Commands in one batch. 512: half of what a server takes (1,000), so that a thousand in flight
/// are never all in one; 55,000 a second were stored with 256 and 97,000 with 1,000.
const BATCH_MAX: usize = 512;

/// Batches under way at one time. 1: the server stores one after the other (two or four at once
/// were measured to store no more), and what comes meanwhile makes the next one larger.
const BATCHES_MAX: usize = 1;

/// What a batch costs the server beside its messages, until one was measured.
const BATCH_COST: Duration = Duration::from_millis(3);

/// What a message of a batch costs.
const MESSAGE_COST: Duration = Duration::from_micros(10);

/// Publishes in flight that a measurement needs, and that a batch needs where it was measured to
/// pay: fewer are stored as fast alone.
const MANY: usize = 16;

/// Publishes under way alone before others wait for them, while gathering.
const ALONE_MAX: usize = 4;

/// Slow publishes in a row that decide, at least; and a quarter more than are in flight, which is
/// more than one pause of a process or a disk can hold up. One that is not slow begins the row anew.
const SLOW_ENOUGH: usize = 128;

/// Publishes in flight while probing, and how many are timed before probing gives up.
const PROBES: usize = 64;
const PROBED_ENOUGH: usize = 512;

/// Gathered commands after which alone is tried again, at first and at last: twice as many each
/// time that gathering was right, so that a wrong turn is soon put right, and a right one costs
/// little (at 50,000 a second, 50 ms every 1.3 s).
const PROBE_AFTER: usize = 2_048;
const PROBE_AFTER_MAX: usize = 65_536;

/// Refused batches in a row after which gathering rests, and for how many publishes at first.
const REFUSALS_BORNE: u32 = 3;
const REST: u32 = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Alone,
    Probing,
    Gathering,
}

/// What was measured.
#[derive(Debug)]
pub(crate) struct Pace {
    wish: Gather,
    mode: Mode,
    /// Whether the server knows atomic batches, and the stream takes them.
    is_possible: bool,
    /// The quickest acknowledgement: the way there and back.
    quickest: Duration,
    /// What a batch costs beside its messages.
    batch_cost: Duration,
    /// What a command of the last batches cost, all in all.
    gathered_cost: Duration,
    slow_in_a_row: usize,
    timed: usize,
    gathered: usize,
    probe_after: usize,
    refused_in_a_row: u32,
    rest: u32,
    batch_max: usize,
}

/// What may leave now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// Nothing.
    Nothing,
    /// So many, each alone.
    Alone(usize),
    /// So many at most, as a batch.
    Together(usize),
}

impl Pace {
    /// Of a connection to a server that knows batches, or does not.
    pub(crate) const fn new(wish: Gather, is_possible: bool) -> Self {
        let mode = match wish {
            Gather::Always => Mode::Gathering,
            Gather::Never | Gather::IfFaster => Mode::Alone,
        };
        Self {
            wish,
            mode,
            is_possible,
            quickest: Duration::MAX,
            batch_cost: BATCH_COST,
            gathered_cost: Duration::ZERO,
            slow_in_a_row: 0,
            timed: 0,
            gathered: 0,
            probe_after: PROBE_AFTER,
            refused_in_a_row: 0,
            rest: 0,
            batch_max: BATCH_MAX,
        }
    }

    /// A new connection.
    pub(crate) const fn connected(&mut self, is_possible: bool) {
        *self = Self::new(self.wish, is_possible);
    }

    /// What may leave of so many that wait, with so many under way alone and in batches.
    pub(crate) const fn leave(&self, alone: usize, batches: usize, waiting: usize) -> Leave {
        let (few, alone_max) = match self.wish {
            Gather::Always => (2, 1),
            Gather::Never | Gather::IfFaster => (MANY, ALONE_MAX),
        };
        if !self.is_possible || self.rest > 0 {
            return Leave::Alone(usize::MAX);
        }
        match self.mode {
            Mode::Alone => Leave::Alone(usize::MAX),
            // Beside a batch, alone would be timed as slow.
            Mode::Probing if batches > 0 || alone >= PROBES => Leave::Nothing,
            Mode::Probing => Leave::Alone(PROBES - alone),
            Mode::Gathering if batches >= BATCHES_MAX => Leave::Nothing,
            // They are in front of a batch, which would be timed with them.
            Mode::Gathering if alone > alone_max => Leave::Nothing,
            Mode::Gathering if waiting >= MANY => Leave::Together(self.batch_max),
            Mode::Gathering if alone >= alone_max => Leave::Nothing,
            Mode::Gathering if waiting >= few => Leave::Together(self.batch_max),
            Mode::Gathering => Leave::Alone(alone_max - alone),
        }
    }

    /// A publish goes out alone, whatever becomes of it.
    pub(crate) const fn left_alone(&mut self) {
        self.rest = self.rest.saturating_sub(1);
    }

    /// A publish that went out alone, with so many others under way, was acknowledged.
    pub(crate) fn acknowledged(&mut self, among: usize, after: Duration) {
        self.quickest = self.quickest.min(after);
        let is_settled = self.wish != Gather::IfFaster || self.mode == Mode::Gathering;
        if is_settled || self.rest > 0 || among < MANY {
            return;
        }
        let together = match self.mode {
            Mode::Alone | Mode::Gathering => self.as_batches(among),
            // Few are timed, so that their share of a batch as large as they were counts.
            Mode::Probing => self.gathered_cost * u32::try_from(among).unwrap_or(u32::MAX),
        };
        let is_slow = after > self.quickest + together * 3 / 2;
        self.slow_in_a_row = if is_slow { self.slow_in_a_row + 1 } else { 0 };
        self.timed += 1;
        if self.slow_in_a_row >= SLOW_ENOUGH.max(among + among / 4) {
            let is_right = self.mode == Mode::Probing;
            let next = if is_right { self.probe_after * 2 } else { PROBE_AFTER };
            self.probe_after = next.min(PROBE_AFTER_MAX);
            self.turn(Mode::Gathering);
        } else if self.mode == Mode::Probing && self.timed >= PROBED_ENOUGH {
            self.turn(Mode::Alone);
        }
    }

    /// How long so many would take in batches, beside the way.
    fn as_batches(&self, count: usize) -> Duration {
        let factor = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        self.batch_cost * factor(count.div_ceil(self.batch_max)) + MESSAGE_COST * factor(count)
    }

    /// A batch was stored.
    pub(crate) fn stored(&mut self, count: usize, after: Duration) {
        self.refused_in_a_row = 0;
        let number = u32::try_from(count.max(1)).unwrap_or(u32::MAX);
        let way = if self.quickest == Duration::MAX { Duration::ZERO } else { self.quickest };
        let cost = after.saturating_sub(way);
        let average = |before: Duration, now: Duration| (before * 7 + now) / 8;
        self.batch_cost = average(self.batch_cost, cost.saturating_sub(MESSAGE_COST * number));
        self.gathered_cost = match self.gathered_cost {
            Duration::ZERO => cost / number,
            before => average(before, cost / number),
        };
        self.gathered += count;
        if self.wish == Gather::IfFaster && self.gathered >= self.probe_after {
            self.turn(Mode::Probing);
        }
    }

    /// A batch was refused for what was in it, or got no answer. Now and then that is an id that
    /// is published twice; over and over, gathering is in vain for a while, longer each time.
    pub(crate) fn refused(&mut self) {
        self.refused_in_a_row += 1;
        if let Some(times) = self.refused_in_a_row.checked_sub(REFUSALS_BORNE) {
            self.rest = REST << times.min(8);
        }
    }

    /// The server takes no batch of this size.
    pub(crate) fn too_many(&mut self) {
        self.batch_max = (self.batch_max / 2).max(2);
    }

    /// There can be no batches on this connection. False when that was known.
    pub(crate) const fn impossible(&mut self) -> bool {
        std::mem::replace(&mut self.is_possible, false)
    }

    fn turn(&mut self, mode: Mode) {
        tracing::debug!(?mode, batch_cost = ?self.batch_cost, "how commands are published");
        self.mode = mode;
        (self.slow_in_a_row, self.timed, self.gathered) = (0, 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALONE: Leave = Leave::Alone(usize::MAX);

    fn pace(wish: Gather) -> Pace {
        Pace::new(wish, true)
    }

    /// Times `count` publishes, each among `among` others, on a broker that needs `each` for one.
    fn time(pace: &mut Pace, count: usize, among: usize, each: Duration) {
        pace.acknowledged(1, each);
        for _ in 0..count {
            pace.acknowledged(among, each * u32::try_from(among).unwrap());
        }
    }

    #[test]
    fn it_pays_where_many_wait_for_each_others_syncs_and_nowhere_else() {
        let (synced, unsynced) = (Duration::from_micros(200), Duration::from_micros(12));
        let far = Duration::from_millis(100);
        for (among, each, pays) in [
            (1, synced, false),
            (15, synced, false),
            (64, synced, true),
            (1_000, synced, true),
            (64, unsynced, false),
            (1_000, unsynced, false),
        ] {
            let mut pace = pace(Gather::IfFaster);
            time(&mut pace, 2_000, among, each);
            let together = pace.leave(0, 0, MANY) == Leave::Together(BATCH_MAX);
            assert_eq!(together, pays, "{among} in flight, {each:?} each");
        }
        let mut pace = pace(Gather::IfFaster);
        (0..1_000).for_each(|_| pace.acknowledged(1_000, far));
        assert_eq!(pace.leave(1_000, 0, 1), ALONE, "far away is not slow");
    }

    #[test]
    fn one_hiccup_decides_nothing() {
        let mut pace = pace(Gather::IfFaster);
        for among in [100, 1_000] {
            // All that are in flight are held up, and then those that were sent meanwhile.
            for _ in 0..10 {
                time(
                    &mut pace,
                    SLOW_ENOUGH.max(among + among / 4) - 1,
                    among,
                    Duration::from_millis(1),
                );
                time(&mut pace, 1, among, Duration::from_micros(1));
            }
            assert_eq!(pace.leave(among, 0, 1), ALONE);
        }
    }

    #[test]
    fn what_was_measured_is_measured_again_from_time_to_time_and_with_each_connection() {
        let mut pace = pace(Gather::IfFaster);
        let synced = Duration::from_micros(200);
        time(&mut pace, 2_000, 1_000, synced);
        assert_eq!(pace.leave(0, 0, MANY - 1), Leave::Alone(ALONE_MAX));
        assert_eq!(pace.leave(ALONE_MAX, 0, MANY - 1), Leave::Nothing);
        assert_eq!(pace.leave(ALONE_MAX, 0, MANY), Leave::Together(BATCH_MAX));
        assert_eq!(pace.leave(ALONE_MAX + 1, 0, MANY), Leave::Nothing);
        assert_eq!(pace.leave(0, 1, MANY), Leave::Nothing, "one under way: the others gather");
        pace.stored(PROBE_AFTER, Duration::from_millis(30));
        assert_eq!(pace.leave(0, 1, MANY), Leave::Nothing, "not beside a batch");
        assert_eq!(pace.leave(PROBES - 1, 0, MANY), Leave::Alone(1));
        assert_eq!(pace.leave(PROBES, 0, MANY), Leave::Nothing);
        time(&mut pace, SLOW_ENOUGH, PROBES, synced);
        assert_eq!(pace.leave(0, 0, MANY), Leave::Together(BATCH_MAX));
        pace.stored(PROBE_AFTER, Duration::from_millis(30));
        assert_eq!(pace.leave(0, 0, MANY), Leave::Together(BATCH_MAX), "it was right: less often");
        pace.stored(PROBE_AFTER, Duration::from_millis(30));
        time(&mut pace, PROBED_ENOUGH, PROBES, Duration::from_micros(12));
        assert_eq!(pace.leave(0, 0, MANY), ALONE);
        time(&mut pace, 2_000, 1_000, synced);
        pace.connected(true);
        assert_eq!(pace.leave(0, 0, MANY), ALONE);
    }

    #[test]
    fn who_asked_for_it_gets_it_where_it_can_be() {
        let mut always = pace(Gather::Always);
        assert_eq!(always.leave(0, 0, MANY), Leave::Together(BATCH_MAX));
        always.too_many();
        assert_eq!(always.leave(0, 0, MANY), Leave::Together(BATCH_MAX / 2));
        assert!(always.impossible());
        assert!(!always.impossible(), "said once");
        assert_eq!(always.leave(1, 1, 1), ALONE);
        let mut never = pace(Gather::Never);
        time(&mut never, 1_000, 1_000, Duration::from_millis(1));
        assert_eq!(never.leave(9, 0, 1), ALONE);
    }

    #[test]
    fn refused_over_and_over_it_rests() {
        let mut pace = pace(Gather::Always);
        for _ in 1..REFUSALS_BORNE {
            pace.refused();
            assert_eq!(pace.leave(0, 0, MANY), Leave::Together(BATCH_MAX));
        }
        for rest in [REST, REST * 2] {
            pace.refused();
            for _ in 0..rest {
                assert_eq!(pace.leave(0, 0, MANY), ALONE);
                pace.left_alone();
            }
            assert_eq!(pace.leave(0, 0, MANY), Leave::Together(BATCH_MAX));
        }
        pace.stored(2, Duration::from_millis(1));
        pace.refused();
        assert_eq!(pace.leave(0, 0, MANY), Leave::Together(BATCH_MAX), "it begins anew");
    }
}
