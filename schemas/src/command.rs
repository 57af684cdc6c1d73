//! A command as an app's code sees it.

use std::borrow::Cow;

use serde::{Serialize, de::DeserializeOwned};

/// An idempotent write, typed: what it is called, what it is ordered by and what it answers.
///
/// ```
/// use std::borrow::Cow;
///
/// use farwrite_schemas::Command;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct PlaceOrder { customer: String, article: String }
///
/// impl Command for PlaceOrder {
///     const NAME: &'static str = "order.place";
///     type Output = u64;
///     fn key(&self) -> Option<Cow<'_, str>> {
///         Some(self.customer.as_str().into())
///     }
/// }
/// ```
pub trait Command: Serialize {
    /// Its name: the end of the subject that it is published to.
    const NAME: &'static str;

    /// The version of its body's form; raise it when an old worker could not read the new body.
    const VERSION: u32 = 1;

    /// What the primary answers when it was applied.
    type Output: DeserializeOwned;

    /// What it is ordered by; `None`, the default, where no order is needed. The producer refuses a
    /// text that does not have a key's form: see [`Key::new`](crate::Key::new).
    fn key(&self) -> Option<Cow<'_, str>> {
        None
    }
}
