//! What an acknowledgement says.

use farwrite_schemas::CommandId;

/// The stream has stored the command: it will be applied, or its failure recorded. The app may go
/// away.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Accepted {
    /// The command id.
    pub id: CommandId,
    /// The stream that holds it.
    pub stream: String,
    /// Its place there.
    pub sequence: u64,
    /// The id was stored before, within the broker's duplicate window, and this copy was dropped:
    /// also when its body was another (`submit` tells that apart, by the fingerprint), and also
    /// when the one before was an attempt of this very call whose acknowledgement was lost.
    pub duplicate: bool,
}
