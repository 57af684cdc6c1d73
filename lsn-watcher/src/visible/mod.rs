//! What is known of a server and of branches of history, and when a position counts as visible.

mod branches;
mod judge;
mod mark;

pub(crate) use branches::Branches;
pub(crate) use judge::{FURTHEST, Judgement, answers, judge};
pub(crate) use mark::ReplayMark;
