//! The benchmark's command: one upsert, which every contestant runs.

use std::{borrow::Cow, fmt::Write};

use bytes::Bytes;
use farwrite_schemas::Command;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

/// How many keys there are: enough that two writers seldom meet.
pub(super) const KEYS: u32 = 100_000;

/// Puts a value under a key; a function of the database applies it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ItemPut {
    /// The key that orders the command.
    pub key: String,
    /// The value; a constraint refuses an empty one.
    pub value: String,
}

/// The same, applied by a handler in Rust.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PutInRust(pub ItemPut);

impl ItemPut {
    /// The command's body.
    pub(super) fn body(&self) -> Bytes {
        Bytes::from(serde_json::to_vec(self).unwrap_or_default())
    }

    /// Runs the statement that every contestant runs; how often the key has been put.
    ///
    /// # Errors
    /// When the database refuses it, or does not answer.
    pub async fn store(&self, connection: &mut PgConnection) -> sqlx::Result<i64> {
        const SQL: &str = "INSERT INTO bench.items AS i VALUES ($1, 1, $2)
             ON CONFLICT (key) DO UPDATE SET n = i.n + 1, value = excluded.value RETURNING n";
        sqlx::query_scalar(SQL).bind(&self.key).bind(&self.value).fetch_one(connection).await
    }
}

impl Command for ItemPut {
    const NAME: &'static str = "item.put";
    type Output = i64;
    fn key(&self) -> Option<Cow<'_, str>> {
        Some(self.key.as_str().into())
    }
}

impl Command for PutInRust {
    const NAME: &'static str = "item.put_in_rust";
    type Output = i64;
    fn key(&self) -> Option<Cow<'_, str>> {
        Some(self.0.key.as_str().into())
    }
}

/// Makes commands of one size, with keys by chance.
#[derive(Clone, Debug)]
pub(super) struct Puts {
    random: fastrand::Rng,
    value: String,
    /// Of so many shares of the keys, this one.
    share: (u32, u32),
}

impl Puts {
    /// Bodies of so many bytes.
    pub(super) fn of(body_bytes: usize) -> Self {
        let empty = serde_json::json!({"key": key(0), "value": ""}).to_string();
        let value = "v".repeat(body_bytes.saturating_sub(empty.len()).max(1));
        Self { random: fastrand::Rng::new(), value, share: (0, 1) }
    }

    /// With keys that no other share has.
    pub(super) fn share(self, share: u32, of: u32) -> Self {
        Self { share: (share, of), ..self }
    }

    fn key(&mut self) -> String {
        let (share, of) = self.share;
        key(self.random.u32(..KEYS / of) * of + share)
    }

    /// The next one.
    pub(super) fn next(&mut self) -> ItemPut {
        ItemPut { key: self.key(), value: self.value.clone() }
    }

    /// One that is refused.
    pub(super) fn refused(&mut self) -> ItemPut {
        ItemPut { key: self.key(), value: String::new() }
    }

    /// True in so many of a hundred cases, by chance.
    pub(super) fn chance(&mut self, percent: u32) -> bool {
        self.random.u32(..100) < percent
    }
}

fn key(number: u32) -> String {
    let mut key = String::with_capacity(8);
    // Writing to a string does not fail.
    let _ = write!(key, "k{number:06}");
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_have_no_key_in_common() {
        let keys = |share| {
            let mut puts = Puts::of(256).share(share, 8);
            (0..1_000).map(|_| puts.next().key).collect::<std::collections::HashSet<_>>()
        };
        assert!(keys(0).is_disjoint(&keys(7)));
    }

    #[test]
    fn bodies_have_the_size_that_is_asked_for() {
        for bytes in [256, 2_048] {
            let put = Puts::of(bytes).next();
            assert_eq!(serde_json::to_vec(&put).unwrap().len(), bytes);
        }
    }
}
