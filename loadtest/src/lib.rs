//! What drives Farwrite as a whole: the demo, benchmarks, chaos, and (in `tests`) the end-to-end
//! guarantees. The checker of histories is a crate of its own.
//!
//! The crate depends on all others and none depends on it. The crate starts real servers and the
//! real programs. Like any app of Farwrite, the crate knows commands through the producer's public
//! interface and through SQL.

pub mod bench;
pub mod chaos;
pub mod check;
pub mod demo;
pub mod flights;
pub mod kit;

/// The README's example, compiled: what a reader copies from there works.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
