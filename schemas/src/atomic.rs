//! Many commands as one: an atomic batch, one message whose commands are all applied, or none.

use std::{collections::HashSet, fmt};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    id::CommandId,
    name::{CommandName, NameError},
};

/// What an atomic batch is called, as a command.
pub const ATOMIC_NAME: &str = "farwrite.batch";

/// Most commands in an atomic batch: it holds its key, and one transaction, for as long as all of
/// them take.
pub const ATOMIC_MAX_COMMANDS: usize = 100;

/// The body of an atomic batch. Its commands are ordered by the batch's key, in the given order.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AtomicBody {
    /// The commands, in the order in which they are applied.
    pub commands: Vec<AtomicCommand>,
}

/// A member of an atomic batch: a command with an outcome of its own, under its own id.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AtomicCommand {
    /// Its command id.
    pub id: CommandId,
    /// What it is called.
    pub name: CommandName,
    /// The version of its body's form; 1 when it is missing.
    #[serde(default = "first_version")]
    pub version: u32,
    /// Its body.
    pub body: Box<RawValue>,
}

/// Without the body, which may hold anything.
impl fmt::Debug for AtomicCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AtomicCommand")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

const fn first_version() -> u32 {
    1
}

/// A body is no atomic batch's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AtomicError {
    /// It is not of the form, or a member is not.
    #[error("the body is not an atomic batch's: {0}")]
    Json(serde_json::Error),
    /// It has no commands, or too many.
    #[error("an atomic batch has between 1 and {ATOMIC_MAX_COMMANDS} commands, and not {0}")]
    Count(usize),
    /// Two commands have one id, or one has the batch's.
    #[error("the command id {0} is used twice in an atomic batch")]
    Repeated(CommandId),
    /// A batch in a batch.
    #[error("an atomic batch cannot hold another")]
    Nested,
    /// A version is not between 1 and 2147483647.
    #[error("the version {0} of a command in an atomic batch is not between 1 and 2147483647")]
    Version(u32),
}

impl From<serde_json::Error> for AtomicError {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error)
    }
}

impl AtomicBody {
    /// Reads and checks the body of the batch with this id.
    ///
    /// # Errors
    /// When it is no atomic batch's; the error says what is wrong.
    pub fn decode(id: CommandId, body: &[u8]) -> Result<Self, AtomicError> {
        let decoded: Self = serde_json::from_slice(body)?;
        decoded.check(id)?;
        Ok(decoded)
    }

    /// Checks what the form alone does not.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self, id: CommandId) -> Result<(), AtomicError> {
        if !(1..=ATOMIC_MAX_COMMANDS).contains(&self.commands.len()) {
            return Err(AtomicError::Count(self.commands.len()));
        }
        let mut ids = HashSet::from([id]);
        for command in &self.commands {
            if !ids.insert(command.id) {
                return Err(AtomicError::Repeated(command.id));
            }
            if command.name.as_str() == ATOMIC_NAME {
                return Err(AtomicError::Nested);
            }
            if command.version == 0 || i32::try_from(command.version).is_err() {
                return Err(AtomicError::Version(command.version));
            }
        }
        Ok(())
    }

    /// What the batch is called.
    ///
    /// # Errors
    /// Never: the name is a constant of the right form.
    pub fn name() -> Result<CommandName, NameError> {
        CommandName::new(ATOMIC_NAME)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0192f5c0-8a7b-7cc3-b1a2-c3d4e5f60718";
    const OTHER: &str = "0192f5c0-8a7b-7cc3-b1a2-c3d4e5f60719";
    const BODY: &str = include_str!("../fixtures/atomic-body.v1.json");

    fn error(body: &str) -> String {
        AtomicBody::decode(ID.parse().unwrap(), body.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_batch_is_written_as_it_was_read() {
        let body = AtomicBody::decode(ID.parse().unwrap(), BODY.trim().as_bytes()).unwrap();
        assert_eq!(serde_json::to_string(&body).unwrap(), BODY.trim());
    }

    #[test]
    fn what_is_no_batch_is_told_apart() {
        let command =
            |id: &str, name: &str| format!("{{\"id\":\"{id}\",\"name\":\"{name}\",\"body\":{{}}}}");
        let batch = |commands: &[String]| format!("{{\"commands\":[{}]}}", commands.join(","));
        assert!(error("{}").contains("commands"));
        assert!(error("{\"commands\":[],\"more\":1}").contains("more"));
        assert!(error(&batch(&[])).contains("not 0"));
        assert!(error(&batch(&vec![command(OTHER, "a"); 101])).contains("not 101"));
        assert!(error(&batch(&[command(OTHER, "a"), command(OTHER, "b")])).contains("twice"));
        assert!(error(&batch(&[command(ID, "a")])).contains("twice"));
        assert!(error(&batch(&[command(OTHER, ATOMIC_NAME)])).contains("another"));
        assert!(error(&batch(&[command(OTHER, "a b")])).contains("name"));
        assert!(error(&batch(&[command("7", "a")])).contains("atomic"));
    }
}
