//! Where the commands of one name go.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use async_nats::Subject;
use farwrite_schemas::{CommandName, Origin, Subjects};

use crate::limits::REMEMBERED_NAMES;

/// A command name with the subject that its commands go to.
#[derive(Debug)]
pub(crate) struct Destination {
    pub(crate) name: CommandName,
    pub(crate) subject: Subject,
    /// A command that went there alone was acknowledged.
    is_answered: AtomicBool,
}

impl Destination {
    /// Commands that go there are answered.
    pub(crate) fn answered(&self) {
        if !self.is_answered() {
            self.is_answered.store(true, Ordering::Relaxed);
        }
    }

    /// Whether that is known: that there is a stream, and that the server lets us publish.
    pub(crate) fn is_answered(&self) -> bool {
        self.is_answered.load(Ordering::Relaxed)
    }
}

/// The subjects of the names that were used, made once each.
#[derive(Debug)]
pub(crate) struct Destinations {
    subjects: Subjects,
    origin: Origin,
    remembered: Mutex<HashMap<Box<str>, Arc<Destination>>>,
}

impl Destinations {
    pub(crate) fn new(subjects: Subjects, origin: Origin) -> Self {
        Self { subjects, origin, remembered: Mutex::default() }
    }

    /// Where commands of this name go.
    ///
    /// # Errors
    /// When it cannot be a command's name.
    pub(crate) fn of(&self, name: &str) -> Result<Arc<Destination>, farwrite_schemas::NameError> {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(target) = remembered.get(name) {
            return Ok(Arc::clone(target));
        }
        let name = CommandName::new(name)?;
        let subject = self.subjects.command(&self.origin, &name).into();
        let target = Arc::new(Destination { name, subject, is_answered: AtomicBool::default() });
        if remembered.len() < REMEMBERED_NAMES {
            remembered.insert(target.name.as_str().into(), Arc::clone(&target));
        }
        Ok(target)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use farwrite_schemas::DatabaseName;

    use super::*;

    pub(crate) fn targets() -> Destinations {
        let database = DatabaseName::new("shop").unwrap();
        Destinations::new(Subjects::new(database), Origin::new("jfk").unwrap())
    }

    #[test]
    fn a_name_has_its_subject_made_once() {
        let targets = targets();
        let one = targets.of("order.place").unwrap();
        assert!(Arc::ptr_eq(&one, &targets.of("order.place").unwrap()));
        assert!(targets.of("order place").is_err());
        for number in 0..REMEMBERED_NAMES + 10 {
            targets.of(&format!("n{number}")).unwrap();
        }
        assert_eq!(targets.remembered.lock().unwrap().len(), REMEMBERED_NAMES);
    }
}
