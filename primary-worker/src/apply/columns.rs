//! Function commands as parallel arrays, and their bodies as one value: how a batch of them travels
//! to PostgreSQL.

use farwrite_schemas::CommandId;
use sqlx::{
    Encode, Postgres, Type,
    encode::IsNull,
    error::BoxDynError,
    postgres::{PgArgumentBuffer, PgArguments, PgTypeInfo},
    query::QueryAs,
    types::Uuid,
};

use super::{item::BatchItem, work::CommandWork};

/// The bodies of some commands, one behind the other, as one `bytea`.
pub(crate) struct Bodies<'a> {
    bodies: Vec<&'a [u8]>,
    /// Where each begins, from 1, and where the last ends.
    starts: Vec<i32>,
}

impl<'a> Bodies<'a> {
    fn for_commands(count: usize) -> Self {
        let mut starts = Vec::with_capacity(count + 1);
        starts.push(1);
        Self { bodies: Vec::with_capacity(count), starts }
    }

    fn push(&mut self, body: &'a [u8]) {
        // A batch is bounded far below what 32 bits can tell.
        let bytes = i32::try_from(body.len()).unwrap_or(i32::MAX);
        let start = self.starts.last().copied().unwrap_or(1);
        self.starts.push(start.saturating_add(bytes));
        self.bodies.push(body);
    }

    /// Bytes of all of them.
    fn bytes(&self) -> usize {
        self.bodies.iter().map(|body| body.len()).sum()
    }

    /// Where each begins, counted from 1 as PostgreSQL does, and after the last where it ends.
    pub(crate) fn starts(&self) -> &[i32] {
        &self.starts
    }
}

impl Type<Postgres> for Bodies<'_> {
    fn type_info() -> PgTypeInfo {
        <[u8] as Type<Postgres>>::type_info()
    }
}

impl Encode<'_, Postgres> for Bodies<'_> {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buffer.reserve(self.bytes());
        self.bodies.iter().for_each(|body| buffer.extend_from_slice(body));
        Ok(IsNull::No)
    }
}

/// The columns of some commands of a batch.
pub(crate) struct Columns<'a> {
    pub(crate) at_ns: Vec<i64>,
    pub(crate) ids: Vec<Uuid>,
    pub(crate) fingerprints: Vec<Uuid>,
    pub(crate) sequences: Vec<i64>,
    pub(crate) functions: Vec<i32>,
    pub(crate) names: Vec<&'a str>,
    pub(crate) versions: Vec<i32>,
    pub(crate) keys: Vec<Option<&'a str>>,
    pub(crate) origins: Vec<&'a str>,
    pub(crate) bodies: Bodies<'a>,
    /// Empty when nothing expires.
    pub(crate) expires_ns: Vec<Option<i64>>,
    /// Whether an outcome is told only when every required standby has it. Empty when none is.
    pub(crate) unconfirmed: Vec<bool>,
    /// Empty when nothing has a context.
    pub(crate) contexts: Vec<Option<&'a str>>,
}

impl<'a> Columns<'a> {
    /// With room for so many in each column that every command has.
    fn for_commands(count: usize) -> Self {
        Self {
            at_ns: Vec::with_capacity(count),
            ids: Vec::with_capacity(count),
            fingerprints: Vec::with_capacity(count),
            sequences: Vec::with_capacity(count),
            functions: Vec::with_capacity(count),
            names: Vec::with_capacity(count),
            versions: Vec::with_capacity(count),
            keys: Vec::with_capacity(count),
            origins: Vec::with_capacity(count),
            bodies: Bodies::for_commands(count),
            expires_ns: Vec::new(),
            unconfirmed: Vec::new(),
            contexts: Vec::new(),
        }
    }

    /// Binds what every function command has, as the eleven parameters behind the fence's.
    pub(crate) fn bind<'q, R>(
        &'q self,
        statement: QueryAs<'q, Postgres, R, PgArguments>,
    ) -> QueryAs<'q, Postgres, R, PgArguments> {
        statement
            .bind(&self.at_ns)
            .bind(&self.ids)
            .bind(&self.fingerprints)
            .bind(&self.sequences)
            .bind(&self.functions)
            .bind(&self.names)
            .bind(&self.versions)
            .bind(&self.keys)
            .bind(&self.origins)
            .bind(&self.bodies)
            .bind(self.bodies.starts())
    }

    /// The lowest and the highest id, where all of them carry a time; `None` also where a command
    /// expires or has a context.
    pub(crate) fn plain_ids(&self) -> Option<(Uuid, Uuid)> {
        let is_dated = |id: &Uuid| CommandId::from_uuid(*id).unix_ms().is_some();
        if !self.expires_ns.is_empty()
            || !self.unconfirmed.is_empty()
            || !self.contexts.is_empty()
            || !self.ids.iter().all(is_dated)
        {
            return None;
        }
        Some((*self.ids.iter().min()?, *self.ids.iter().max()?))
    }

    /// Messages that are no commands, and commands that are no functions, have no place in
    /// columns, and are not in such batches.
    pub(crate) fn of(items: impl Iterator<Item = &'a BatchItem> + Clone) -> Self {
        let count = items.clone().count();
        let mut columns = Self::for_commands(count);
        let expires = items.clone().any(|item| item.expires_ns.is_some());
        let context =
            |item: &'a BatchItem| item.delivery.envelope.as_ref().ok()?.context.as_deref();
        let contexts = items.clone().any(|item| context(item).is_some());
        for item in items {
            let (Ok(envelope), CommandWork::Function(function)) =
                (&item.delivery.envelope, &item.work)
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
            columns.bodies.push(item.delivery.body());
            if expires {
                columns.expires_ns.push(item.expires_ns);
            }
            if item.unconfirmed {
                columns.unconfirmed.resize(columns.ids.len() - 1, false);
                columns.unconfirmed.push(true);
            }
            if contexts {
                columns.contexts.push(context(item));
            }
        }
        if !columns.unconfirmed.is_empty() {
            columns.unconfirmed.resize(columns.ids.len(), false);
        }
        columns
    }
}

#[cfg(test)]
mod tests {
    use farwrite_schemas::{CommandId, headers};

    use super::*;
    use crate::{apply::functions::Function, lane::batch::cut, stream::delivery::Delivery};

    fn item(sequence: u64) -> BatchItem {
        let subject = "farwrite.shop.cmd.jfk.order.place".to_owned();
        let id = CommandId::now().to_string();
        let headers =
            vec![(headers::COMMAND_ID.to_owned(), id), (headers::KEY.to_owned(), "k1".to_owned())];
        let delivery = Delivery::kept(subject, headers, b"{}".to_vec(), sequence, 0);
        let function = Function { number: 1, alone: false, schema: None };
        BatchItem::new(delivery, CommandWork::Function(function), None, None)
    }

    #[test]
    fn a_batch_is_put_together_with_a_constant_number_of_allocations() {
        let cost = |commands: u64| {
            let items: Vec<BatchItem> = (0..commands).map(item).collect();
            let mut batches = Vec::new();
            let cut = allocation_counter::measure(|| batches = cut(items.into_iter()));
            assert_eq!(batches.len(), 1);
            let columns = allocation_counter::measure(|| {
                assert_eq!(Columns::of(batches[0].items.iter()).ids.len(), batches[0].items.len());
            });
            (cut.count_total, columns.count_total)
        };
        assert_eq!(cost(256), cost(16), "they grow with the batch");
        let (cut, columns) = cost(256);
        assert!(cut <= 3, "{cut} allocations: the batches, the batch and its ids");
        assert!(
            columns <= 11,
            "{columns} allocations: one for each column, and the places of bodies"
        );
    }

    #[test]
    fn bodies_lie_behind_each_other_and_their_places_are_those_of_bytes() {
        let mut bodies = Bodies::for_commands(3);
        for body in ["\"Zürich\"", "", "{}"] {
            bodies.push(body.as_bytes());
        }
        assert_eq!((bodies.starts(), bodies.bytes()), (&[1, 10, 10, 12][..], 11));
        let mut buffer = PgArgumentBuffer::default();
        assert!(matches!(bodies.encode_by_ref(&mut buffer), Ok(IsNull::No)));
        assert_eq!(&buffer[..], "\"Zürich\"{}".as_bytes());
    }

    #[inline(never)]
    fn hot_put_a_batch_together(items: &[BatchItem]) {
        std::hint::black_box(Columns::of(items.iter()).ids.len());
    }

    /// For `loadtest/counts.sh`.
    #[test]
    fn putting_a_batch_of_100_together() {
        let items: Vec<BatchItem> = (0..100).map(item).collect();
        (0..10).for_each(|_| hot_put_a_batch_together(&items));
    }
}
