//! The settings that a command stream must have.
//!
//! A command that was accepted must stay until the worker has applied it, however long the worker
//! is away. Every setting by which JetStream would drop one on its own is refused, with what to
//! change.

use async_nats::jetstream::stream::{
    Config as Stream, DiscardPolicy, RetentionPolicy, StorageType,
};
use farwrite_schemas::{BODY_MAX_BYTES, Subjects};
use uuid::Uuid;

use crate::config::Config;

use super::{error::StreamError, identity::IDENTITY_KEY};

/// Room for the subject and the headers of a command with the largest body.
const HEADERS_MAX_BYTES: usize = 8 << 10;

/// The stream that `migrate` makes.
pub(crate) fn new_stream(config: &Config, subjects: &Subjects) -> Stream {
    Stream {
        name: config.stream.clone(),
        subjects: vec![subjects.all_commands()],
        description: Some(format!("Farwrite's commands for the database {}", config.database)),
        storage: StorageType::File,
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::New,
        max_bytes: config.new_stream.max_bytes,
        max_message_size: i32::try_from(BODY_MAX_BYTES + HEADERS_MAX_BYTES).unwrap_or(i32::MAX),
        num_replicas: config.new_stream.replicas,
        duplicate_window: config.new_stream.duplicate_window,
        allow_direct: true,
        // A message that was deleted by hand would leave a gap that looks like a loss.
        deny_delete: true,
        allow_atomic_publish: true,
        metadata: [(IDENTITY_KEY.to_owned(), Uuid::new_v4().to_string())].into(),
        ..Stream::default()
    }
}

/// Checks a stream's settings.
pub(crate) fn check(stream: &Stream, subjects: &Subjects) -> Result<(), StreamError> {
    let broken = broken(stream, &subjects.all_commands());
    if broken.is_empty() {
        Ok(())
    } else {
        Err(StreamError::Contract { stream: stream.name.clone(), broken })
    }
}

fn broken(stream: &Stream, commands: &str) -> Vec<String> {
    let rules = [
        (
            stream.storage == StorageType::File,
            "storage is memory: a restart loses it; make it file",
        ),
        (
            stream.discard == DiscardPolicy::New,
            "discard is old: a full stream drops its oldest commands; make it new",
        ),
        (
            stream.retention == RetentionPolicy::Limits,
            "retention is not limits: messages vanish when consumers acknowledge them",
        ),
        (
            stream.max_age.is_zero(),
            "max_age is set: commands vanish by age, applied or not; make it 0",
        ),
        (
            stream.max_messages_per_subject <= 0,
            "max_msgs_per_subject is set: a command would drop an older one of its name; make it -1",
        ),
        (
            !stream.allow_message_ttl,
            "allow_msg_ttl is on: a header could make a command vanish; turn it off",
        ),
        (
            !stream.allow_rollup,
            "allow_rollup_hdrs is on: a header could drop all commands; turn it off",
        ),
        (!stream.no_ack, "no_ack is on: publishes are never acknowledged; turn it off"),
        (
            stream.mirror.is_none() && stream.sources.as_ref().is_none_or(Vec::is_empty),
            "it mirrors or sources another stream",
        ),
        (
            stream.republish.is_none() && stream.subject_transform.is_none(),
            "it rewrites or republishes subjects",
        ),
        (
            stream.allow_atomic_publish,
            "allow_atomic is off: producers gather commands into atomic batches; turn it on",
        ),
    ];
    let mut broken: Vec<String> =
        rules.into_iter().filter(|(holds, _)| !holds).map(|(_, rule)| rule.to_owned()).collect();
    if stream.subjects != [commands] {
        broken.push(format!("its subjects are {:?}; make them [{commands:?}]", stream.subjects));
    }
    broken
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use farwrite_schemas::DatabaseName;

    use super::*;

    #[test]
    fn the_stream_that_migrate_makes_keeps_the_contract_and_every_change_breaks_it() {
        let database = DatabaseName::new("shop").unwrap();
        let subjects = Subjects::new(database.clone());
        let config = Config::new(database, "postgres://localhost", "localhost");
        let good = new_stream(&config, &subjects);
        assert!(check(&good, &subjects).is_ok());
        let changes: [fn(&mut Stream); 9] = [
            |s| s.storage = StorageType::Memory,
            |s| s.discard = DiscardPolicy::Old,
            |s| s.retention = RetentionPolicy::WorkQueue,
            |s| s.max_age = Duration::from_secs(1),
            |s| s.max_messages_per_subject = 1,
            |s| s.allow_message_ttl = true,
            |s| s.allow_rollup = true,
            |s| s.subjects = vec!["other.>".into()],
            |s| s.allow_atomic_publish = false,
        ];
        for change in changes {
            let mut stream = good.clone();
            change(&mut stream);
            assert!(check(&stream, &subjects).is_err(), "{stream:?}");
        }
    }
}
