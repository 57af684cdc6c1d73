//! Measurements: how soon waiters are woken, what polling costs, and what a waiter weighs.
//!
//! Figures of one run compare with each other and with no other machine's.

mod waiters;
mod wake_up;

pub use waiters::{WaitersReport, Weighed, run as waiters, weigh};
pub use wake_up::{PaceReport, WakeUpReport, paces, run as wake_up};

use std::time::Duration;

/// A part of a sorted list of durations, in microseconds.
fn quantile(sorted: &[Duration], part: f64) -> f64 {
    let index = ((sorted.len() as f64 - 1.0) * part).round() as usize;
    sorted.get(index).map_or(f64::NAN, |value| value.as_secs_f64() * 1e6)
}
