//! What drives Farwrite as a whole: the demo, users who hop between regions, benchmarks, chaos, the
//! checker of histories, and (in `tests`) the end-to-end guarantees.
//!
//! The crate depends on all others and none depends on it. It starts real servers and the real
//! programs, and is an app of Farwrite like any other: what it knows of commands it knows through
//! the producer's public interface and through SQL.

pub mod args;
pub mod bench;
pub mod chaos;
pub mod demo;
pub mod flights;
pub mod hop;
mod programs;
mod scrape;

/// The README's example, compiled: what a reader copies from there works.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
