//! Guards that a build for tests can be told to leave out, so that chaos is seen to find what they
//! prevent. Without the feature `sabotage` no guard can be left out, and nothing is asked.

/// The environment variable that names the guard.
pub const VARIABLE: &str = "FARWRITE_SABOTAGE";

/// Whether this guard is left out.
#[cfg(feature = "sabotage")]
#[must_use]
pub fn leaves_out(guard: &str) -> bool {
    static LEFT_OUT: std::sync::LazyLock<Option<String>> =
        std::sync::LazyLock::new(|| std::env::var(VARIABLE).ok());
    LEFT_OUT.as_deref() == Some(guard)
}

/// Whether this guard is left out: never.
#[cfg(not(feature = "sabotage"))]
#[must_use]
pub const fn leaves_out(_guard: &str) -> bool {
    false
}
