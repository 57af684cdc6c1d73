//! A model of Farwrite's protocol, small enough that a model checker walks through every state of it.
//!
//! The tests and the chaos run the programs and draw faults. The model has no code of the programs: it is
//! what they promise to do, step by step, and the laws are what may never be. In a small world (two workers,
//! two lanes, three commands, one failover or one loss of the broker) every order of every step is tried. A
//! defect that the protocol once had can be put back: then the checker finds the shortest way to a broken law.
//!
//! | file | what |
//! |---|---|
//! | [`world`] | the bounds of a world: its commands, and how often what may fail; the defects |
//! | [`state`] | what there is: calls, the stream, databases, workers |
//! | [`step`] | what may happen next |
//! | [`protocol`] | what happens: each step, as the programs do it |
//! | [`laws`] | what may never be |
//! | [`check`] | walking through a world, and telling what was found |

pub mod check;
pub mod laws;
pub mod protocol;
pub mod state;
pub mod step;
pub mod world;
