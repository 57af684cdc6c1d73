//! Walking through a world, and telling what was found.

use std::{
    fmt,
    time::{Duration, Instant},
};

use stateright::{Checker, Expectation, HasDiscoveries, Model, Property};

use crate::{
    laws::{self, LAWS},
    protocol::Protocol,
    state::State,
    step::{self, Step},
};

/// A state in which every command has ended: without one a world shows nothing.
const ALL_END: &str = "every command can end";

impl Model for Protocol {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![self.first()]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        step::candidates(&self.world, state, steps);
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        self.next(state, step)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let law =
            |(name, condition)| Property { expectation: Expectation::Always, name, condition };
        let end = Property {
            expectation: Expectation::Sometimes,
            name: ALL_END,
            condition: laws::all_ended,
        };
        LAWS.into_iter().map(law).chain([end]).collect()
    }
}

/// What was found in a world.
#[derive(Debug)]
pub struct Walk {
    /// Different states.
    pub states: usize,
    /// Steps of the longest of the shortest ways to a state.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// Whether every command can end.
    pub goes_somewhere: bool,
    /// The law that was broken, and the shortest way there.
    pub broken: Option<(&'static str, Vec<Step>)>,
}

/// Walks through all of a world, or up to the first broken law.
#[must_use]
pub fn walk(protocol: Protocol) -> Walk {
    let began = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let names = LAWS.iter().map(|(name, _)| *name).collect();
    let until = HasDiscoveries::AnyOf(names);
    let checker = protocol.checker().threads(threads).finish_when(until).spawn_bfs().join();
    let mut found = checker.discoveries();
    let goes_somewhere = found.remove(ALL_END).is_some();
    let broken = found.into_iter().next().map(|(name, path)| (name, path.into_actions()));
    Walk {
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        took: began.elapsed(),
        goes_somewhere,
        broken,
    }
}

impl fmt::Display for Walk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { states, depth, took, broken, .. } = self;
        write!(f, "{states} states, {depth} steps deep, {:.1} s: ", took.as_secs_f64())?;
        let Some((law, steps)) = broken else { return write!(f, "no law is broken") };
        write!(f, "broken is \"{law}\", by")?;
        for (number, step) in (1..).zip(steps) {
            write!(f, "\n  {number:2}. {step}")?;
        }
        Ok(())
    }
}
