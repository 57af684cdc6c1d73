//! What must have been there by a moment: one sweep through time, with the most that was known of
//! each group until then.

use std::{collections::HashMap, hash::Hash};

use crate::history::HistoryMoment;

/// From `at` on, or at `at`, a group had `n`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FloorMark<G> {
    /// Only marks of one group are compared.
    pub(crate) group: G,
    pub(crate) at: HistoryMoment,
    pub(crate) n: u64,
    /// Whose mark it is: an index into a list of the caller.
    pub(crate) whose: usize,
}

/// Every asked mark that has something to be compared with, and the highest that was known in its
/// group before it.
pub(crate) fn floors<G: Copy + Eq + Hash>(
    mut known: Vec<FloorMark<G>>,
    mut asked: Vec<FloorMark<G>>,
) -> Vec<(FloorMark<G>, FloorMark<G>)> {
    known.sort_unstable_by_key(|mark| mark.at);
    asked.sort_unstable_by_key(|mark| mark.at);
    let mut known = known.into_iter().peekable();
    let mut highest: HashMap<G, FloorMark<G>> = HashMap::new();
    let mut compared = Vec::new();
    for asked in asked {
        while let Some(mark) = known.next_if(|mark| mark.at < asked.at) {
            let floor = highest.entry(mark.group).or_insert(mark);
            if mark.n > floor.n {
                *floor = mark;
            }
        }
        compared.extend(highest.get(&asked.group).map(|floor| (asked, *floor)));
    }
    compared
}
