//! The question for the outcome of a command.

use serde::{Deserialize, Serialize};

use crate::{fingerprint::Fingerprint, id::CommandId};

/// The question for the outcome of a command.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct OutcomeRequest {
    /// Whose outcome.
    pub id: CommandId,
    /// What the asker published under that id, where it knows: the answer is `id_reused` when the
    /// ledger holds another command under it.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "fingerprint_as_uuid")]
    pub fingerprint: Option<Fingerprint>,
}

mod fingerprint_as_uuid {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use uuid::Uuid;

    use crate::fingerprint::Fingerprint;

    #[allow(clippy::ref_option, clippy::trivially_copy_pass_by_ref)] // serde's signature
    pub(super) fn serialize<S: Serializer>(
        fingerprint: &Option<Fingerprint>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        fingerprint.map(Fingerprint::as_uuid).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Fingerprint>, D::Error> {
        Ok(Option::<Uuid>::deserialize(deserializer)?.map(Fingerprint::from_uuid))
    }
}
