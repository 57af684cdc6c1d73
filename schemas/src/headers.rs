//! The names of the headers that a command and a reply carry.
//!
//! A command's body is its own JSON and nothing else; everything about it is a header.

/// The command id: a UUID of 36 characters. JetStream's own header, so that the broker suppresses
/// what comes twice within its duplicate window. Required.
pub const COMMAND_ID: &str = "Nats-Msg-Id";
/// The key. Without it the command has no order.
pub const KEY: &str = "Farwrite-Key";
/// The version of the body's form, a positive number; 1 when it is missing.
pub const VERSION: &str = "Farwrite-Version";
/// The subject that the outcome is sent to: an inbox under the origin's own prefix.
pub const REPLY: &str = "Farwrite-Reply";
/// When the command is no longer to be applied: Unix time in milliseconds, decimal digits. By the
/// database's clock, when its turn comes.
pub const EXPIRES_AT: &str = "Farwrite-Expires-At";
/// When the command is to be applied at the earliest, written as [`EXPIRES_AT`] is. Until then it
/// has no place in its key's order, and holds nothing back.
pub const NOT_BEFORE: &str = "Farwrite-Not-Before";
/// What row-level security and triggers may want to know of the caller: a JSON object, which the
/// worker sets as the setting `farwrite.context` while the command runs, where it allows it.
pub const CONTEXT: &str = "Farwrite-Context";
/// Those that an [`Envelope`](crate::Envelope) is read from.
pub const OF_ENVELOPE: [&str; 6] = [COMMAND_ID, KEY, VERSION, EXPIRES_AT, NOT_BEFORE, CONTEXT];
/// The W3C trace context. Reserved: nothing here writes or reads it, and a command may carry it.
pub const TRACEPARENT: &str = "traceparent";
