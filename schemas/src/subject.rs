//! The NATS subjects of one database.

use crate::name::{CommandName, DatabaseName, NameError, Origin};

/// The subjects of one database, all under `farwrite.<database>.`.
///
/// | subject | carries | from → to |
/// |---|---|---|
/// | `….cmd.<origin>.<command name>` | commands, stored by the stream | producer → worker |
/// | `….reply.<origin>.<instance>` | outcomes ([`Reply`](crate::Reply)) | worker → producer |
/// | `….outcome` | questions for an outcome, a NATS service | producer → worker |
/// | `….lag` | questions how far behind the worker is ([`Lag`](crate::Lag)), the same service | producer → worker |
/// | `….hint.<stream>` | how far commands were applied, stored by a stream | worker → worker |
/// | `….watch.<region>` | [`Interest`](crate::Interest) in a position | app → watcher |
/// | `….progress.<region>` | [`ReplicaProgress`](crate::ReplicaProgress) of the replica | watcher → apps |
#[derive(Clone, Debug)]
pub struct Subjects {
    database: DatabaseName,
}

impl Subjects {
    /// The subjects of `database`.
    #[must_use]
    pub const fn new(database: DatabaseName) -> Self {
        Self { database }
    }

    /// Whose subjects these are.
    #[must_use]
    pub const fn database(&self) -> &DatabaseName {
        &self.database
    }

    /// Every command of the database: what its stream listens to.
    #[must_use]
    pub fn all_commands(&self) -> String {
        format!("farwrite.{}.cmd.>", self.database)
    }

    /// One command from one origin.
    #[must_use]
    pub fn command(&self, origin: &Origin, name: &CommandName) -> String {
        format!("farwrite.{}.cmd.{origin}.{name}", self.database)
    }

    /// What every reply subject of an origin starts with. A region's credentials allow it to
    /// listen there and nowhere else, and the worker answers there and nowhere else.
    #[must_use]
    pub fn reply_prefix(&self, origin: &Origin) -> String {
        format!("farwrite.{}.reply.{origin}.", self.database)
    }

    /// Where one producer listens for replies.
    #[must_use]
    pub fn reply(&self, origin: &Origin, instance: &str) -> String {
        format!("farwrite.{}.reply.{origin}.{instance}", self.database)
    }

    /// The worker's service that tells outcomes by id.
    #[must_use]
    pub fn outcome(&self) -> String {
        format!("farwrite.{}.outcome", self.database)
    }

    /// The worker's service that tells how far behind it is.
    #[must_use]
    pub fn lag(&self) -> String {
        format!("farwrite.{}.lag", self.database)
    }

    /// Where the worker tells the broker how far it has come in a stream.
    #[must_use]
    pub fn hint(&self, stream: &str) -> String {
        format!("farwrite.{}.hint.{stream}", self.database)
    }

    /// Where the worker that serves a stream leaves its name.
    #[must_use]
    pub fn served(&self, stream: &str) -> String {
        format!("farwrite.{}.served.{stream}", self.database)
    }

    /// Where a region's apps tell its watcher what they wait for.
    #[must_use]
    pub fn watch(&self, region: &Origin) -> String {
        format!("farwrite.{}.watch.{region}", self.database)
    }

    /// A region's service that tells when a bookmark is visible there.
    #[must_use]
    pub fn visibility(&self, region: &Origin) -> String {
        format!("farwrite.{}.visibility.{region}", self.database)
    }

    /// Where a region's watcher tells how far its replica has come.
    #[must_use]
    pub fn progress(&self, region: &Origin) -> String {
        format!("farwrite.{}.progress.{region}", self.database)
    }
}

/// What a command's subject says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandSubject {
    /// The region that published it.
    pub origin: Origin,
    /// What it is called.
    pub name: CommandName,
}

impl CommandSubject {
    /// Reads `farwrite.<database>.cmd.<origin>.<command name>`; `None` for another shape.
    ///
    /// # Errors
    /// When a part does not have its form.
    pub fn parse(subject: &str) -> Result<Option<Self>, NameError> {
        let mut parts = subject.splitn(5, '.');
        let (Some("farwrite"), Some(database), Some("cmd"), Some(origin), Some(name)) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Ok(None);
        };
        // The reader of a command knows the database that it is for.
        DatabaseName::check(database)?;
        Ok(Some(Self { origin: Origin::new(origin)?, name: CommandName::new(name)? }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_subject_is_read_as_it_was_written() {
        let subjects = Subjects::new(DatabaseName::new("shop").unwrap());
        let origin = Origin::new("jfk").unwrap();
        let name = CommandName::new("order.place").unwrap();
        let subject = subjects.command(&origin, &name);
        assert_eq!(subject, "farwrite.shop.cmd.jfk.order.place");
        let read = CommandSubject::parse(&subject).unwrap().unwrap();
        assert_eq!((read.origin, read.name), (origin, name));
    }

    #[test]
    fn other_subjects_are_not_commands() {
        for subject in ["", "farwrite.shop", "farwrite.shop.reply.jfk.x", "x.shop.cmd.jfk.y"] {
            assert_eq!(CommandSubject::parse(subject), Ok(None), "{subject:?}");
        }
        assert!(CommandSubject::parse("farwrite.shop.cmd.jfk.a b").is_err());
        assert!(CommandSubject::parse("farwrite.shop.cmd.jfk.").is_err());
        assert!(CommandSubject::parse("farwrite.s p.cmd.jfk.a").is_err());
    }
}
