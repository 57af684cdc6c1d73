//! Function commands as parallel arrays: how a batch of them travels to PostgreSQL.

use sqlx::types::Uuid;

use super::{batch::Item, work::Work};

/// The columns of some commands of a batch.
#[derive(Default)]
pub(super) struct Columns<'a> {
    pub(super) at_ns: Vec<i64>,
    pub(super) ids: Vec<Uuid>,
    pub(super) fingerprints: Vec<Uuid>,
    pub(super) sequences: Vec<i64>,
    pub(super) functions: Vec<i32>,
    /// Empty when none is in set form.
    pub(super) set_forms: Vec<bool>,
    pub(super) names: Vec<&'a str>,
    pub(super) versions: Vec<i32>,
    pub(super) keys: Vec<Option<&'a str>>,
    pub(super) origins: Vec<&'a str>,
    pub(super) bodies: Vec<&'a str>,
    /// Empty when nothing expires.
    pub(super) expires_ns: Vec<Option<i64>>,
    /// Empty when nothing has a context.
    pub(super) contexts: Vec<Option<&'a str>>,
}

impl<'a> Columns<'a> {
    /// Messages that are no commands, and commands that are no functions, have no place in
    /// columns, and are not in such batches.
    pub(super) fn of(items: impl Iterator<Item = &'a Item> + Clone) -> Self {
        let mut columns = Self::default();
        let set_forms = items.clone().any(|item| match &item.work {
            Work::Function(function) => function.set_form,
            Work::Handler(_)
            | Work::Atomic { .. }
            | Work::Park(_)
            | Work::Reject(_)
            | Work::DeadLetter { .. } => false,
        });
        let expires = items.clone().any(|item| item.expires_ns.is_some());
        let context = |item: &'a Item| item.delivery.envelope.as_ref().ok()?.context.as_deref();
        let contexts = items.clone().any(|item| context(item).is_some());
        for item in items {
            let (Ok(envelope), Work::Function(function)) = (&item.delivery.envelope, &item.work)
            else {
                continue;
            };
            columns.at_ns.push(item.delivery.at_ns);
            columns.ids.push(envelope.id.uuid());
            columns.fingerprints.push(envelope.fingerprint.as_uuid());
            columns.sequences.push(item.delivery.sequence.cast_signed());
            columns.functions.push(function.number);
            columns.names.push(envelope.name.as_str());
            columns.versions.push(envelope.version.cast_signed());
            columns.keys.push(envelope.key.as_ref().map(|key| key.as_str()));
            columns.origins.push(envelope.origin.as_str());
            // Checked for UTF-8 when it was decoded.
            columns.bodies.push(std::str::from_utf8(item.delivery.body()).unwrap_or(""));
            if set_forms {
                columns.set_forms.push(function.set_form);
            }
            if expires {
                columns.expires_ns.push(item.expires_ns);
            }
            if contexts {
                columns.contexts.push(context(item));
            }
        }
        columns
    }
}
