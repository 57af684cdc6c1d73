//! The benchmark: scenarios, each beside its baselines, and a report.
//!
//! ```text
//! command ──▶ scenario/* ──▶ measure (medians, targets) ──▶ report ──▶ table, JSON, html/*
//!                │
//!                ├─ stage, fill: servers, databases, workers, full streams
//!                └─ baseline/*: what Farwrite is compared with
//! ```
//!
//! Figures of one run compare with each other and with no other machine's.

mod baseline;
mod command;
mod fill;
mod html;
mod machine;
mod measure;
mod put;
mod report;
mod scenario;
mod stage;
mod table;

pub use command::{command, run_command, run_weigh_command, weigh_command};
pub use put::{ItemPut, PutInRust};
