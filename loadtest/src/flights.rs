//! The two commands of the demo's app: a flight departed, or was cancelled.
//!
//! Both are ordered by the aircraft. Two kinds of handlers apply them: functions of the database
//! (`demo/flights.sql`) and Rust (`bin/flights-worker.rs`).

use std::borrow::Cow;

use farwrite_schemas::Command;
use serde::{Deserialize, Serialize};

/// One departure, as the timetable and the tower know it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Flight {
    /// Where it is in the file; the header is line 1.
    pub line: i32,
    /// `2013-01-31`.
    pub day: String,
    /// Tail number, or flight number where there is none.
    pub aircraft: String,
    /// `UA`.
    pub carrier: String,
    /// 1545.
    pub flight: i32,
    /// The airport that it leaves.
    pub origin: String,
    /// The airport that it flies to.
    pub dest: String,
    /// Miles between them.
    pub distance: i32,
}

/// The flight departed: it is booked, and the aircraft moves.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Departed(pub Flight);

/// The flight was cancelled: it is booked, and nothing moves.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cancelled(pub Flight);

/// What both answer: how far the aircraft has flown by now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flown {
    /// Legs, with this one if it was flown.
    pub legs: i32,
    /// Miles, with this leg's.
    pub miles: i64,
}

impl Command for Departed {
    const NAME: &'static str = "flight.departed";
    type Output = Flown;
    fn key(&self) -> Option<Cow<'_, str>> {
        Some(self.0.aircraft.as_str().into())
    }
}

impl Command for Cancelled {
    const NAME: &'static str = "flight.cancelled";
    type Output = Flown;
    fn key(&self) -> Option<Cow<'_, str>> {
        Some(self.0.aircraft.as_str().into())
    }
}
