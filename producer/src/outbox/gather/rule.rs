//! When publishes leave alone, and when together.
//!
//! A broker that syncs every message stores single publishes one after the other, each in about
//! 0.2 ms. Another broker stores one in 0.01 ms. An atomic batch takes either of them some
//! milliseconds, since it is staged in files of its own, and 0.01 ms a message. So a batch of
//! hundreds pays on a broker that syncs, and not on another.
//!
//! ```text
//! alone ── more of them in a row than are under way were late ──▶ together
//!   ▲                                                                │
//!   └── 256 batches have ended, or one was small, slow or not stored ─┘
//! ```
//!
//! **Late** is a publish that took longer than 0.04 ms for each that was under way when it left. The
//! way there and back is not counted, so that a far broker is no slow one.
//!
//! **Together** means that one batch is under way at a time. What comes meanwhile leaves when that
//! has ended. A batch is slow where its publishes would be stored as fast alone: from far away, a
//! batch of few large bodies is. After a slow batch, and after the third in a row that was not
//! stored, publishes go alone for a while without being judged. A new connection may be one to
//! another server: it begins alone.
//!
//! Pure: clocks come from outside.

use std::time::Duration;

/// When a producer gathers what waits into atomic batches of JetStream's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Gather {
    /// Every command is published alone.
    Never,
    /// Under load, where single publishes are stored slowly: in effect, where the broker syncs
    /// every message.
    #[default]
    Auto,
    /// Always: one batch is under way at a time. Slower than `Never` on a broker that does not sync
    /// every message.
    Always,
}

/// Commands in one batch. 512: half of what a server takes (1,000), so that a thousand in flight
/// are never all in one.
const BATCH_MAX: usize = 512;

/// Longer than this for each that is under way is late. 0.04 ms: four times what a broker needs that
/// does not sync, a quarter of what one needs that does.
const LATE_EACH: Duration = Duration::from_micros(40);

/// Publishes under way that make one worth judging; fewer are stored as fast alone.
const MANY: usize = 32;

/// Late publishes in a row that decide, beside as many as are under way: one pause of a process or
/// a disk holds up those, and no more.
const LATE_IN_A_ROW: usize = 256;

/// Batches until publishes go alone again, and are judged again. 256, some seconds: judging takes
/// a tenth of that.
const BATCHES: usize = 256;

/// A batch of fewer is a small one: its publishes are stored as fast alone.
const FEW: usize = 16;

/// A batch that took longer than this for each of its messages is slow. 0.2 ms: what a broker needs
/// for one publish that it syncs.
const SLOW_EACH: Duration = Duration::from_micros(200);

/// Publishes under way alone that hold up no batch: a caller that stopped polling its own call keeps
/// its publish under way.
const BORNE_ALONE: usize = 4;

/// Batches in a row that may fail before publishes rest from being judged.
const FAILURES_BORNE: u32 = 3;

/// Publishes of the first rest; each further one is twice as long, at most 65,536.
const REST: usize = 256;

/// What is under way, and what was seen of it.
#[derive(Debug)]
pub(super) struct GatherRule {
    gather: Gather,
    /// Whether the server knows atomic batches, and the stream takes them.
    can_batch: bool,
    /// Publishes under way alone, and batches.
    alone: usize,
    batches: usize,
    /// The quickest acknowledgement: the way there and back.
    quickest: Duration,
    late_in_a_row: usize,
    /// Batches until publishes go alone again.
    batches_left: usize,
    batch_max: usize,
    /// Batches in a row that were slow or not stored.
    failures: u32,
    /// Publishes until they are judged again.
    rest_left: usize,
}

/// What may leave now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leave {
    /// Nothing.
    Nothing,
    /// So many, each alone.
    Alone(usize),
    /// So many at most, as a batch.
    Together(usize),
}

impl GatherRule {
    /// Of a connection to a server that knows batches, or does not.
    pub(super) const fn new(gather: Gather, can_batch: bool) -> Self {
        Self {
            gather,
            can_batch,
            alone: 0,
            batches: 0,
            quickest: Duration::MAX,
            late_in_a_row: 0,
            batches_left: 0,
            batch_max: BATCH_MAX,
            failures: 0,
            rest_left: 0,
        }
    }

    /// A new connection.
    pub(super) const fn connected(&mut self, can_batch: bool) {
        *self = Self::new(self.gather, can_batch);
    }

    /// What may leave of so many that wait.
    pub(super) fn leave(&self, waiting: usize) -> Leave {
        let always = self.gather == Gather::Always && self.rest_left == 0;
        let is_together = always || self.batches_left > 0;
        match waiting {
            0 => Leave::Nothing,
            _ if !self.can_batch || !is_together => Leave::Alone(waiting),
            _ if self.batches > 0 || self.alone > self.borne(waiting) => Leave::Nothing,
            1 => Leave::Alone(1),
            _ => Leave::Together(self.batch_max),
        }
    }

    /// How many publishes under way alone hold up no batch. Where the operator wants batches, few
    /// that wait become more meanwhile.
    fn borne(&self, waiting: usize) -> usize {
        match self.gather == Gather::Always && waiting < FEW {
            true => 0,
            false => BORNE_ALONE,
        }
    }

    /// A publish leaves alone; says how many are under way alone with it.
    pub(super) const fn left_alone(&mut self) -> usize {
        self.alone += 1;
        self.alone
    }

    /// One that left alone is not under way any more, whatever became of it.
    pub(super) const fn alone_ended(&mut self) {
        self.alone = self.alone.saturating_sub(1);
    }

    /// A publish that left alone, among so many, was acknowledged. `among` is `None` where that is
    /// not known.
    pub(super) fn acknowledged(&mut self, among: Option<usize>, took: Duration) {
        self.quickest = self.quickest.min(took);
        if self.rest_left > 0 {
            self.rest_left -= 1;
            return;
        }
        let Some(among) = among.filter(|_| self.batches_left == 0 && self.can_batch) else {
            return;
        };
        let each = LATE_EACH * u32::try_from(among).unwrap_or(u32::MAX);
        // Of a long way the eighth is not told from its own variation.
        let late = each.max(self.quickest / 8);
        let is_late = among >= MANY && took - self.quickest > late;
        self.late_in_a_row = if is_late { self.late_in_a_row + 1 } else { 0 };
        if self.late_in_a_row >= among + LATE_IN_A_ROW && self.gather == Gather::Auto {
            (self.late_in_a_row, self.batches_left) = (0, BATCHES);
            tracing::debug!("commands are published together");
        }
    }

    /// A batch leaves.
    pub(super) const fn left_together(&mut self) {
        self.batches += 1;
    }

    /// A batch of so many has ended, so long after it left.
    pub(super) fn batch_ended(&mut self, is_stored: bool, count: usize, took: Duration) {
        self.batches = self.batches.saturating_sub(1);
        let each = SLOW_EACH * u32::try_from(count).unwrap_or(u32::MAX);
        let is_slow = is_stored && self.gather == Gather::Auto && count >= FEW && took > each;
        self.failures = match is_stored {
            true if is_slow => (self.failures + 1).max(FAILURES_BORNE),
            true => 0,
            false => self.failures.saturating_add(1),
        };
        if self.failures >= FAILURES_BORNE {
            self.rest_left = REST << (self.failures - FAILURES_BORNE).min(8);
        }
        self.batches_left = match is_stored && !is_slow && count >= FEW {
            true => self.batches_left.saturating_sub(1),
            false => 0,
        };
        if self.batches_left == 0 {
            // The way may have become longer.
            self.quickest = Duration::MAX;
        }
    }

    /// The server takes no batch of this size.
    pub(super) fn too_many(&mut self) {
        self.batch_max = (self.batch_max / 2).max(2);
    }

    /// There can be no batches on this connection.
    pub(super) const fn impossible(&mut self) {
        self.can_batch = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYNCED: Duration = Duration::from_micros(170);
    const UNSYNCED: Duration = Duration::from_micros(15);
    const FAR: Duration = Duration::from_millis(80);
    /// Of a batch.
    const QUICK: Duration = Duration::from_millis(3);

    fn rule(gather: Gather) -> GatherRule {
        GatherRule::new(gather, true)
    }

    /// Acknowledges `count` publishes, each among `among`, on a broker that needs `each` for one.
    fn acknowledge(
        rule: &mut GatherRule,
        count: usize,
        among: usize,
        way: Duration,
        each: Duration,
    ) {
        rule.acknowledged(None, way + each);
        for _ in 0..count {
            rule.acknowledged(Some(among), way + each * u32::try_from(among).unwrap());
        }
    }

    fn is_together(rule: &GatherRule) -> bool {
        rule.leave(2) == Leave::Together(BATCH_MAX)
    }

    #[test]
    fn many_wait_for_each_others_syncs_and_then_leave_together_and_nowhere_else() {
        for (among, each, way, expected) in [
            (1, SYNCED, Duration::ZERO, false),
            (MANY - 1, SYNCED, Duration::ZERO, false),
            (MANY, SYNCED, Duration::ZERO, true),
            (1_000, SYNCED, Duration::ZERO, true),
            (1_000, UNSYNCED, Duration::ZERO, false),
            (1_000, SYNCED, FAR, true),
            (1_000, UNSYNCED, FAR, false),
            (1_000, Duration::ZERO, FAR, false),
        ] {
            let mut rule = rule(Gather::Auto);
            acknowledge(&mut rule, 2_000, among, way, each);
            assert_eq!(is_together(&rule), expected, "{among} in flight, {each:?} each, {way:?}");
        }
    }

    #[test]
    fn one_pause_decides_nothing() {
        let mut rule = rule(Gather::Auto);
        for among in [MANY, 1_000] {
            // The pause holds up all that are under way, and those that were sent meanwhile.
            for _ in 0..10 {
                acknowledge(&mut rule, among + LATE_IN_A_ROW - 1, among, FAR, SYNCED);
                acknowledge(&mut rule, 1, among, FAR, UNSYNCED);
            }
            assert_eq!(rule.leave(9), Leave::Alone(9));
        }
    }

    #[test]
    fn together_one_is_under_way_at_a_time_and_then_all_that_wait() {
        let mut rule = rule(Gather::Auto);
        acknowledge(&mut rule, 2_000, 1_000, Duration::ZERO, SYNCED);
        assert_eq!(rule.leave(0), Leave::Nothing);
        assert_eq!(rule.leave(1), Leave::Alone(1));
        (0..BORNE_ALONE).for_each(|_| _ = rule.left_alone());
        assert!(is_together(&rule), "few that stay under way hold nothing up");
        assert_eq!(rule.left_alone(), BORNE_ALONE + 1);
        assert_eq!(rule.leave(9), Leave::Nothing);
        rule.alone_ended();
        assert_eq!(rule.leave(9), Leave::Together(BATCH_MAX));
        rule.left_together();
        assert_eq!(rule.leave(9), Leave::Nothing);
        rule.batch_ended(true, FEW, QUICK);
        assert_eq!(rule.leave(9), Leave::Together(BATCH_MAX));
    }

    #[test]
    fn alone_is_tried_again_after_a_while_or_a_small_batch_or_with_a_new_connection() {
        let together = || {
            let mut rule = rule(Gather::Auto);
            acknowledge(&mut rule, 2_000, 1_000, Duration::ZERO, SYNCED);
            rule
        };
        let mut long = together();
        for _ in 0..BATCHES {
            assert!(is_together(&long));
            long.left_together();
            long.batch_ended(true, FEW, QUICK);
        }
        assert_eq!(long.leave(9), Leave::Alone(9));
        acknowledge(&mut long, 2_000, 1_000, Duration::ZERO, SYNCED);
        assert!(is_together(&long), "it is judged again");
        let ends = [(true, FEW - 1, QUICK), (false, 500, QUICK), (true, 100, FAR)];
        for (is_stored, count, took) in ends {
            let mut rule = together();
            rule.left_together();
            rule.batch_ended(is_stored, count, took);
            assert_eq!(rule.leave(9), Leave::Alone(9));
        }
        let mut anew = together();
        anew.connected(true);
        assert_eq!(anew.leave(9), Leave::Alone(9));
    }

    #[test]
    fn what_is_slow_together_or_fails_again_and_again_goes_alone_for_a_while() {
        let judge = |rule: &mut GatherRule| {
            acknowledge(rule, 2_000, 1_000, FAR, SYNCED);
            is_together(rule)
        };
        let mut far = rule(Gather::Auto);
        assert!(judge(&mut far));
        far.batch_ended(true, BATCH_MAX, FAR);
        assert!(is_together(&far), "so many are worth the way");
        far.batch_ended(true, 100, FAR);
        for _ in 0..REST {
            assert_eq!(far.leave(9), Leave::Alone(9));
            acknowledge(&mut far, 0, 1_000, FAR, SYNCED);
        }
        assert!(judge(&mut far), "it is judged again");

        for gather in [Gather::Auto, Gather::Always] {
            let mut rule = rule(gather);
            for failure in 0..FAILURES_BORNE {
                assert!(judge(&mut rule), "after {failure} failures");
                rule.batch_ended(false, 500, QUICK);
            }
            for rest in [REST, 2 * REST] {
                assert_eq!(rule.rest_left, rest);
                assert_eq!(rule.leave(9), Leave::Alone(9));
                acknowledge(&mut rule, rest - 1, 1_000, FAR, SYNCED);
                assert!(judge(&mut rule));
                rule.batch_ended(false, 500, QUICK);
            }
        }
    }

    #[test]
    fn a_way_that_grows_is_no_slow_broker() {
        let mut rule = rule(Gather::Auto);
        acknowledge(&mut rule, 100, MANY, FAR, UNSYNCED);
        acknowledge(&mut rule, 2_000, MANY, FAR + FAR / 10, UNSYNCED);
        assert_eq!(rule.leave(9), Leave::Alone(9));
    }

    #[test]
    fn the_operators_word_counts_where_there_can_be_batches() {
        let mut always = rule(Gather::Always);
        assert!(is_together(&always));
        always.left_together();
        always.batch_ended(false, 0, QUICK);
        assert!(is_together(&always), "also after one that was refused");
        always.too_many();
        assert_eq!(always.leave(9), Leave::Together(BATCH_MAX / 2));
        always.impossible();
        assert_eq!(always.leave(9), Leave::Alone(9));
        let mut never = rule(Gather::Never);
        acknowledge(&mut never, 2_000, 1_000, Duration::ZERO, SYNCED);
        assert_eq!(never.leave(9), Leave::Alone(9));
        assert_eq!(GatherRule::new(Gather::Always, false).leave(9), Leave::Alone(9));
    }
}
