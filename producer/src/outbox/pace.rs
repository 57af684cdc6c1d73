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
//!                          └── each cost more than its share of a full batch would ──▶ gathering
//! ```
//!
//! Gathering, too, lets few go alone, since a batch of them would take longer: one leaves when more
//! wait than are stored alone in the time that it takes. From far away many publishes are on their
//! way and wait for nothing, and so may batches be.
//!
//! A new connection may be one to another server, or to one that was set up anew: everything is
//! learnt again. Pure: clocks and counts come from outside.

use std::time::Duration;

use tokio::time::Instant;

use crate::outbox::probe::{Probe, Probed};

/// When a producer gathers what waits into atomic batches of JetStream's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
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

/// Batches under way at one time, at least: the server stores one after the other (two or four at
/// once were measured to store no more), and what comes meanwhile makes the next one larger. Far
/// from the server there are as many more as it stores while one is on the way; a stream takes 50
/// at once, of all producers.
const BATCHES: u32 = 1;
const BATCHES_MAX: u32 = 4;

/// What a batch costs the server beside its messages, until one was measured.
const BATCH_COST: Duration = Duration::from_millis(3);

/// What a message of a batch costs.
const MESSAGE_COST: Duration = Duration::from_micros(10);

/// Publishes in flight that a measurement needs, and that a batch needs at least: fewer are stored as
/// fast alone.
pub(crate) const MANY: usize = 16;

/// Publishes under way alone before others wait for them, while gathering; far from the server as
/// many more as it stores while one is on the way, up to so many.
const ALONE: usize = 4;
const ON_THE_WAY_MAX: u32 = 512;

/// What a publish costs that is stored alone, until some were measured.
const ALONE_COST: Duration = Duration::from_micros(200);

/// Slow publishes in a row that decide, at least; and a quarter more than are in flight, which is
/// more than one pause of a process or a disk can hold up. One that is not slow begins the row anew.
const SLOW_ENOUGH: usize = 128;

/// Publishes in flight while probing, beside those that are only on the way.
const PROBES: usize = 64;

/// Commands while gathering after which alone is tried again, at first and at last: twice as many each
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
    /// What a publish costs the server that is stored alone.
    alone_cost: Duration,
    slow_in_a_row: usize,
    probe: Probe,
    /// Commands that went out since it began to gather, together or alone.
    gathered: usize,
    /// Publishes that went out alone, ever.
    left: u64,
    probe_after: usize,
    refused_in_a_row: u32,
    rest: u32,
    batch_max: usize,
}

/// A publish that left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Left {
    /// Its number among all that did on this connection, from 1.
    pub(crate) number: u64,
    /// How many were under way alone, itself included.
    pub(crate) among: usize,
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
            alone_cost: ALONE_COST,
            slow_in_a_row: 0,
            probe: Probe::after(0),
            gathered: 0,
            left: 0,
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
    pub(crate) fn leave(&self, alone: usize, batches: usize, waiting: usize) -> Leave {
        if !self.is_possible || self.rest > 0 {
            return Leave::Alone(usize::MAX);
        }
        match self.mode {
            Mode::Alone => Leave::Alone(usize::MAX),
            // Beside a batch, alone would be timed as slow.
            Mode::Probing if batches > 0 => Leave::Nothing,
            Mode::Probing => match (PROBES + self.on_the_way()).saturating_sub(alone) {
                0 => Leave::Nothing,
                count => Leave::Alone(count),
            },
            Mode::Gathering => self.leave_gathering(alone, batches, waiting),
        }
    }

    fn leave_gathering(&self, alone: usize, batches: usize, waiting: usize) -> Leave {
        let (few, many, alone_max) = match self.wish {
            Gather::Always => (2, MANY, 1),
            Gather::Never | Gather::IfFaster => {
                let many = self.worth_a_batch();
                (many, many, ALONE + self.on_the_way())
            }
        };
        // Those that are alone are in front of a batch, which would be timed with them.
        if batches >= self.batches_at_once() || alone > alone_max {
            return Leave::Nothing;
        }
        // The more are under way, the larger the next one.
        if waiting >= (many * (batches + 1)).min(self.batch_max) {
            return Leave::Together(self.batch_max);
        }
        if alone >= alone_max || batches > 0 {
            return Leave::Nothing;
        }
        if waiting >= few {
            Leave::Together(self.batch_max)
        } else {
            Leave::Alone(alone_max - alone)
        }
    }

    /// The way to the server and back, as far as it is known.
    const fn way(&self) -> Duration {
        match self.quickest {
            Duration::MAX => Duration::ZERO,
            quickest => quickest,
        }
    }

    /// How many publishes the server stores while one is on its way: they wait for nothing but the
    /// way, however many of them are in flight.
    fn on_the_way(&self) -> usize {
        times(self.way(), self.alone_cost).min(ON_THE_WAY_MAX) as usize
    }

    fn batches_at_once(&self) -> usize {
        BATCHES.saturating_add(times(self.way(), self.batch_cost)).min(BATCHES_MAX) as usize
    }

    /// From how many on a batch is stored sooner than each alone.
    fn worth_a_batch(&self) -> usize {
        (times(self.batch_cost, self.alone_cost) as usize).max(MANY).min(self.batch_max)
    }

    /// A publish goes out alone, whatever becomes of it, and is one of so many that are under way.
    pub(crate) fn left_alone(&mut self, among: usize) -> Left {
        self.rest = self.rest.saturating_sub(1);
        self.left += 1;
        self.went(1);
        Left { number: self.left, among }
    }

    /// So many commands went out.
    fn went(&mut self, count: usize) {
        if self.wish == Gather::IfFaster && self.mode == Mode::Gathering {
            self.gathered += count;
            if self.gathered >= self.probe_after {
                self.turn(Mode::Probing);
            }
        }
    }

    /// A publish that went out alone was acknowledged, while so many still are under way. Without
    /// `left` it tells how long the way is, and not whether it is crowded.
    pub(crate) fn acknowledged(
        &mut self,
        left: Option<Left>,
        alone: usize,
        after: Duration,
        now: Instant,
    ) {
        self.quickest = self.quickest.min(after);
        let is_settled = self.wish != Gather::IfFaster || self.mode == Mode::Gathering;
        let Some(left) = left.filter(|_| !is_settled && self.rest == 0) else { return };
        if self.mode == Mode::Probing {
            if let Some(probed) = self.probe.acknowledged(left, alone, after, now) {
                self.probed(probed);
            }
            return;
        }
        let among = left.among;
        if among < MANY {
            return;
        }
        let is_slow = after - self.quickest > self.as_batches(among) * 3 / 2;
        self.slow_in_a_row = if is_slow { self.slow_in_a_row + 1 } else { 0 };
        if self.slow_in_a_row >= SLOW_ENOUGH.max(among + among / 4) {
            self.probe_after = PROBE_AFTER;
            self.turn(Mode::Gathering);
        }
    }

    /// Enough went alone to tell how they fare.
    fn probed(&mut self, Probed { cost, waited, way }: Probed) {
        let costs_more = cost > self.as_batches(self.batch_max) / factor(self.batch_max) * 3 / 2;
        // Who waits for less than a batch takes, or than the way varies, gains nothing by one.
        if costs_more && waited > BATCH_COST.max(way / 8) {
            self.alone_cost = cost;
            self.probe_after = (self.probe_after * 2).min(PROBE_AFTER_MAX);
            self.turn(Mode::Gathering);
        } else {
            self.batch_cost = BATCH_COST;
            self.turn(Mode::Alone);
        }
    }

    /// How long so many would take in batches, beside the way.
    fn as_batches(&self, count: usize) -> Duration {
        self.batch_cost * factor(count.div_ceil(self.batch_max)) + MESSAGE_COST * factor(count)
    }

    /// A batch was stored so long after it left, and after the one before it was, which it may have
    /// waited for. A single one that is held up must not keep all others from leaving.
    pub(crate) fn stored(&mut self, count: usize, after: Duration, since_last: Duration) {
        self.refused_in_a_row = 0;
        let cost = after.saturating_sub(self.way()).min(since_last);
        let cost = cost.saturating_sub(MESSAGE_COST * factor(count)).min(self.batch_cost * 2);
        self.batch_cost = ((self.batch_cost * 7 + cost) / 8).max(BATCH_COST / 10);
        self.went(count);
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
        tracing::debug!(?mode, batch_cost = ?self.batch_cost, alone_cost = ?self.alone_cost, "how commands are published");
        self.mode = mode;
        (self.slow_in_a_row, self.gathered) = (0, 0);
        self.probe = Probe::after(self.left);
    }
}

pub(crate) fn factor(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// How often one goes into the other.
fn times(long: Duration, short: Duration) -> u32 {
    u32::try_from(long.as_nanos() / short.as_nanos().max(1)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL_ALONE: Leave = Leave::Alone(usize::MAX);

    fn pace(wish: Gather) -> Pace {
        Pace::new(wish, true)
    }

    /// Times `count` publishes, each among `among` others, on a broker that needs `each` for one.
    fn time(pace: &mut Pace, count: usize, among: usize, each: Duration) {
        let left = pace.left_alone(1);
        pace.acknowledged(Some(left), 1, each, Instant::now());
        time_on(pace, count, among, each);
    }

    /// The same, on a connection whose way is known.
    fn time_on(pace: &mut Pace, count: usize, among: usize, each: Duration) {
        let mut now = Instant::now();
        for _ in 0..count {
            now += each;
            let left = pace.left_alone(among);
            pace.acknowledged(Some(left), among, each * factor(among), now);
        }
    }

    /// As many probes as decide, on a broker that needs `each` for one: the first ones find nobody
    /// in front of them.
    fn probe(pace: &mut Pace, each: Duration) {
        let began = Instant::now();
        for number in 1..=500 {
            if pace.mode != Mode::Probing {
                break;
            }
            let among = number.min(PROBES);
            let left = pace.left_alone(among);
            let (after, at) = (each * factor(among), began + each * factor(number));
            pace.acknowledged(Some(left), PROBES, after, at);
        }
    }

    /// Gathers until alone is tried again.
    fn gather(pace: &mut Pace, batch_cost: Duration) {
        for _ in 0..=PROBE_AFTER_MAX / BATCH_MAX {
            if pace.mode != Mode::Gathering {
                return;
            }
            let took = pace.way() + batch_cost + MESSAGE_COST * factor(BATCH_MAX);
            pace.stored(BATCH_MAX, took, took);
        }
        panic!("it never probes");
    }

    fn is_gathering(pace: &Pace) -> bool {
        pace.leave(0, 0, BATCH_MAX) == Leave::Together(BATCH_MAX)
    }

    const SYNCED: Duration = Duration::from_micros(200);
    const UNSYNCED: Duration = Duration::from_micros(12);

    #[test]
    fn it_pays_where_many_wait_for_each_others_syncs_and_nowhere_else() {
        let far = Duration::from_millis(100);
        for (among, each, pays) in [
            (1, SYNCED, false),
            (15, SYNCED, false),
            (64, SYNCED, true),
            (1_000, SYNCED, true),
            (64, UNSYNCED, false),
            (1_000, UNSYNCED, false),
        ] {
            let mut pace = pace(Gather::IfFaster);
            time(&mut pace, 2_000, among, each);
            assert_eq!(is_gathering(&pace), pays, "{among} in flight, {each:?} each");
        }
        let mut pace = pace(Gather::IfFaster);
        let now = Instant::now();
        for _ in 0..1_000 {
            let left = pace.left_alone(1_000);
            pace.acknowledged(Some(left), 1_000, far, now);
        }
        assert_eq!(pace.leave(1_000, 0, 1), ALL_ALONE, "far away is not slow");
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
            assert_eq!(pace.leave(among, 0, 1), ALL_ALONE);
        }
    }

    #[test]
    fn what_was_measured_is_measured_again_from_time_to_time_and_with_each_connection() {
        let mut pace = pace(Gather::IfFaster);
        time(&mut pace, 2_000, 1_000, SYNCED);
        let near = ALONE + 1;
        assert_eq!(pace.leave(0, 0, MANY - 1), Leave::Alone(near));
        assert_eq!(pace.leave(near, 0, MANY - 1), Leave::Nothing);
        assert_eq!(pace.leave(near, 0, MANY), Leave::Together(BATCH_MAX));
        assert_eq!(pace.leave(near + 1, 0, MANY), Leave::Nothing);
        assert_eq!(pace.leave(0, 1, BATCH_MAX), Leave::Nothing, "one under way: the others gather");
        gather(&mut pace, BATCH_COST);
        assert_eq!(pace.leave(0, 1, MANY), Leave::Nothing, "not beside a batch");
        assert_eq!(pace.leave(PROBES, 0, MANY), Leave::Alone(1));
        assert_eq!(pace.leave(PROBES + 1, 0, MANY), Leave::Nothing);
        probe(&mut pace, SYNCED);
        assert!(is_gathering(&pace));
        pace.stored(PROBE_AFTER, Duration::from_millis(30), Duration::from_secs(1));
        assert!(is_gathering(&pace), "it was right: less often");
        gather(&mut pace, BATCH_COST);
        probe(&mut pace, UNSYNCED);
        assert_eq!(pace.leave(0, 0, MANY), ALL_ALONE);
        time(&mut pace, 2_000, 1_000, SYNCED);
        pace.connected(true);
        assert_eq!(pace.leave(0, 0, MANY), ALL_ALONE);
    }

    #[test]
    fn a_server_that_is_busy_with_batches_is_not_quick_alone() {
        let mut pace = pace(Gather::IfFaster);
        time(&mut pace, 2_000, 1_000, SYNCED);
        // 64 alone take less than such a batch; thousands would not.
        gather(&mut pace, Duration::from_millis(20));
        probe(&mut pace, SYNCED);
        assert!(is_gathering(&pace));
        assert!(matches!(pace.leave(0, 0, 20), Leave::Alone(_)), "few are stored sooner alone");
    }

    #[test]
    fn one_batch_that_is_held_up_keeps_nobody_from_leaving() {
        let mut pace = pace(Gather::IfFaster);
        time(&mut pace, 2_000, 1_000, SYNCED);
        pace.stored(10, Duration::from_secs(1), Duration::from_secs(1));
        assert_eq!(pace.leave(0, 0, MANY + 1), Leave::Together(BATCH_MAX));
        for _ in 0..20 {
            pace.stored(10, Duration::from_secs(1), Duration::from_secs(1));
        }
        assert_eq!(pace.leave(0, 0, 95), Leave::Alone(ALONE + 1), "each time it is worth less");
        for _ in 0..PROBE_AFTER {
            pace.left_alone(1);
        }
        assert_eq!(pace.leave(0, 0, 95), Leave::Alone(PROBES + 1), "so alone is tried");
        for _ in 0..500 {
            pace.acknowledged(None, PROBES, Duration::from_secs(1), Instant::now());
        }
        assert_eq!(pace.leave(0, 0, 95), Leave::Alone(PROBES + 1), "a retry is no probe");
    }

    /// Acknowledgements of a wave that left at once, in the order in which they are stored.
    fn wave(pace: &mut Pace, count: usize, way: Duration, each: Duration) {
        let began = Instant::now();
        let lefts: Vec<_> = (1..=count).map(|among| pace.left_alone(among)).collect();
        for place in 1..=count {
            let after = way + each * factor(place);
            let left = lefts[place - 1];
            pace.acknowledged(Some(left), count - place, after, began + after);
        }
    }

    #[test]
    fn far_from_the_server_what_is_on_the_way_holds_nobody_up() {
        let far = Duration::from_millis(80);
        let mut pace = pace(Gather::IfFaster);
        pace.acknowledged(None, 1, far, Instant::now());
        time_on(&mut pace, 2_000, 1_000, SYNCED);
        assert_eq!(pace.leave(0, 0, 1), Leave::Alone(ALONE + 400), "80 ms of 200 µs");
        assert_eq!(pace.leave(100, 0, MANY), Leave::Together(BATCH_MAX));
        assert_eq!(pace.leave(0, 1, 1), Leave::Nothing);
        assert_eq!(pace.leave(0, 1, MANY), Leave::Nothing, "the next one is larger");
        assert_eq!(pace.leave(0, 1, MANY * 2), Leave::Together(BATCH_MAX));
        assert_eq!(pace.leave(0, 3, MANY * 4), Leave::Together(BATCH_MAX));
        assert_eq!(pace.leave(0, BATCHES_MAX as usize, BATCH_MAX), Leave::Nothing);
        gather(&mut pace, BATCH_COST);
        assert_eq!(pace.leave(0, 0, 1), Leave::Alone(PROBES + 400));
        wave(&mut pace, PROBES + 400, far, SYNCED);
        assert!(is_gathering(&pace));
        gather(&mut pace, BATCH_COST);
        wave(&mut pace, PROBES + 400, far, UNSYNCED);
        assert_eq!(pace.leave(0, 0, 1), ALL_ALONE);
        time_on(&mut pace, 2_000, 1_000, SYNCED);
        gather(&mut pace, BATCH_COST);
        let mut now = Instant::now();
        for _ in 0..200 {
            now += far / 32;
            let left = pace.left_alone(32);
            pace.acknowledged(Some(left), 32, far, now);
        }
        assert_eq!(pace.leave(0, 0, 1), ALL_ALONE, "32 in flight wait for nothing but the way");
    }

    #[test]
    fn who_asked_for_it_gets_it_where_it_can_be() {
        let mut always = pace(Gather::Always);
        assert_eq!(always.leave(0, 0, MANY), Leave::Together(BATCH_MAX));
        always.too_many();
        assert_eq!(always.leave(0, 0, MANY), Leave::Together(BATCH_MAX / 2));
        assert!(always.impossible());
        assert!(!always.impossible(), "said once");
        assert_eq!(always.leave(1, 1, 1), ALL_ALONE);
        let mut never = pace(Gather::Never);
        time(&mut never, 1_000, 1_000, Duration::from_millis(1));
        assert_eq!(never.leave(9, 0, 1), ALL_ALONE);
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
                assert_eq!(pace.leave(0, 0, MANY), ALL_ALONE);
                pace.left_alone(1);
            }
            assert_eq!(pace.leave(0, 0, MANY), Leave::Together(BATCH_MAX));
        }
        pace.stored(2, Duration::from_millis(1), Duration::from_secs(1));
        pace.refused();
        assert_eq!(pace.leave(0, 0, MANY), Leave::Together(BATCH_MAX), "it begins anew");
    }
}
