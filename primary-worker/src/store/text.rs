//! Texts of others, as PostgreSQL can hold them.

/// What a message brought, without characters of code zero: PostgreSQL's texts have none.
pub(crate) fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
