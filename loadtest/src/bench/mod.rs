//! The benchmark: scenarios, each beside its baselines, and a report.
//!
//! ```text
//! flags ──▶ scenario/* ──▶ measure (medians, targets) ──▶ report ──▶ table, JSON, html/*
//!              │
//!              ├─ stage, fill: servers, databases, workers, full streams
//!              └─ baseline/*: what Farwrite is compared with
//! ```
//!
//! Figures of one run compare with each other and with no other machine's.

mod baseline;
mod fill;
mod flags;
mod html;
mod machine;
mod measure;
mod put;
mod report;
mod scenario;
mod stage;
mod table;

pub use flags::{as_told, command, weigh_as_told, weigh_command};
pub use put::{Put, PutInRust};
pub use report::{Latencies, Machine, Moment, Report, Row, Timeline};
