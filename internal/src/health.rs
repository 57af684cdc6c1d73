//! Whether a program is ready: a list of problems, empty while it is.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A program's health, shared between its tasks and its HTTP side. A program that is not ready is
/// not broken: it waits for a server or for an operator, and restarting it helps nobody.
#[derive(Clone, Debug)]
pub struct Health(Arc<Mutex<Vec<Problem>>>);

#[derive(Debug)]
struct Problem {
    /// Who has it: `waiting`, `lane 2`, `NATS`.
    who: String,
    why: String,
}

impl Default for Health {
    fn default() -> Self {
        let starting = Problem { who: "waiting".to_owned(), why: "starting".to_owned() };
        Self(Arc::new(Mutex::new(vec![starting])))
    }
}

impl Health {
    /// Why the program is not ready, a line each, the oldest first; empty when it is.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        self.lock().iter().map(|Problem { who, why }| format!("{who}: {why}")).collect()
    }

    /// No problem is left.
    pub fn ready(&self) {
        self.lock().clear();
    }

    /// The whole program waits; problems of its parts are forgotten.
    pub fn waiting(&self, why: impl Into<String>) {
        let problem = Problem { who: "waiting".to_owned(), why: why.into() };
        *self.lock() = vec![problem];
    }

    /// A part of the program has this problem, instead of the one that it had.
    pub fn trouble(&self, who: &str, why: impl Into<String>) {
        let (mut problems, why) = (self.lock(), why.into());
        match problems.iter_mut().find(|problem| problem.who == who) {
            Some(problem) => problem.why = why,
            None => problems.push(Problem { who: who.to_owned(), why }),
        }
    }

    /// A part of the program has no problem any more; `waiting` is the whole program's.
    pub fn over(&self, who: &str) {
        self.lock().retain(|problem| problem.who != who);
    }

    /// The list is whole at any time: a panic of a holder cannot have left half of a change.
    fn lock(&self) -> MutexGuard<'_, Vec<Problem>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_while_no_part_has_a_problem() {
        let health = Health::default();
        assert_eq!(health.problems(), ["waiting: starting"]);
        health.ready();
        assert!(health.problems().is_empty());
        health.trouble("lane 2", "full");
        health.trouble("lane 2", "its session ended");
        health.trouble("NATS", "not connected");
        assert_eq!(health.problems(), ["lane 2: its session ended", "NATS: not connected"]);
        health.over("lane 2");
        assert_eq!(health.problems(), ["NATS: not connected"]);
        health.waiting("the primary is away");
        assert_eq!(health.problems(), ["waiting: the primary is away"]);
        health.over("waiting");
        assert!(health.problems().is_empty());
    }
}
