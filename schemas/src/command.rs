//! A command as an app's code sees it.

use serde::{Serialize, de::DeserializeOwned};

use crate::key::{Key, KeyError};

/// An idempotent write, typed: what it is called, what it is ordered by and what it answers.
///
/// ```
/// use farwrite_schemas::{Command, Key, KeyError};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct PlaceOrder { customer: String, article: String }
///
/// impl Command for PlaceOrder {
///     const NAME: &'static str = "order.place";
///     type Output = u64;
///     fn key(&self) -> Result<Option<Key>, KeyError> {
///         Key::new(&self.customer).map(Some)
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

    /// What it is ordered by; `None` where no order is needed.
    ///
    /// # Errors
    /// When a field that makes the key does not have a key's form.
    fn key(&self) -> Result<Option<Key>, KeyError>;
}
