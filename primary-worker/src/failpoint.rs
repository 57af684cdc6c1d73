//! Named points where a test kills the worker, or makes it panic.
//!
//! `FARWRITE_FAILPOINT=after_commit:3` ends the process with SIGKILL when it passes `after_commit`
//! for the third time: nothing is flushed, closed or told, as when a machine loses its power. With
//! `after_commit:3:panic` it panics there instead. The program says at its start that one is armed.
//! Unarmed, passing costs one load of an atomic.

use std::sync::{
    LazyLock,
    atomic::{AtomicU64, Ordering},
};

/// The environment variable that arms one.
pub const VARIABLE: &str = "FARWRITE_FAILPOINT";

/// Every failpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failpoint {
    /// A lane has a batch, and nothing was sent to PostgreSQL.
    BeforeApply,
    /// The batch ran in its transaction, which is not committed.
    BeforeCommit,
    /// The batch is committed, and nobody was told.
    AfterCommit,
    /// The flush position is read, and no reply is sent.
    BeforeReply,
    /// The replies are sent, and the next batch is not begun.
    AfterReply,
    /// The takeover is committed, and nothing was read.
    AfterTakeover,
    /// A message of the stream came, and is not decoded.
    Reading,
    /// Questions for outcomes came, and nothing was looked up.
    Answering,
}

impl Failpoint {
    /// All of them, for tests that walk through every one.
    pub const ALL: [Self; 8] = [
        Self::BeforeApply,
        Self::BeforeCommit,
        Self::AfterCommit,
        Self::BeforeReply,
        Self::AfterReply,
        Self::AfterTakeover,
        Self::Reading,
        Self::Answering,
    ];

    /// Its name, as the variable has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BeforeApply => "before_apply",
            Self::BeforeCommit => "before_commit",
            Self::AfterCommit => "after_commit",
            Self::BeforeReply => "before_reply",
            Self::AfterReply => "after_reply",
            Self::AfterTakeover => "after_takeover",
            Self::Reading => "reading",
            Self::Answering => "answering",
        }
    }

    /// Whether this one is armed.
    pub(crate) fn is_armed(self) -> bool {
        ARMED.as_ref().is_some_and(|armed| armed.point == self)
    }

    /// Passes the place: kills the process, or panics, when it is armed and its time has come.
    pub(crate) fn pass(self) {
        let Some(armed) = ARMED.as_ref().filter(|armed| armed.point == self) else { return };
        if armed.passes_left.fetch_sub(1, Ordering::Relaxed) == 1 {
            assert!(!armed.panics, "the failpoint {}", self.name());
            let _ = rustix::process::kill_process(
                rustix::process::getpid(),
                rustix::process::Signal::KILL,
            );
        }
    }
}

struct Armed {
    point: Failpoint,
    passes_left: AtomicU64,
    panics: bool,
}

static ARMED: LazyLock<Option<Armed>> = LazyLock::new(|| {
    let value = std::env::var(VARIABLE).ok()?;
    let (point, passes, panics) = parse(&value)?;
    Some(Armed { point, passes_left: AtomicU64::new(passes), panics })
});

/// `name`, `name:passes` or `name:passes:panic`, passes counted from 1.
fn parse(value: &str) -> Option<(Failpoint, u64, bool)> {
    let whole = value.strip_suffix(":panic");
    let (value, panics) = (whole.unwrap_or(value), whole.is_some());
    let (name, passes) = value.split_once(':').unwrap_or((value, "1"));
    let point = Failpoint::ALL.into_iter().find(|point| point.name() == name)?;
    Some((point, passes.parse().ok().filter(|&passes| passes > 0)?, panics))
}

/// The failpoint that the environment names, if any.
///
/// # Errors
/// When the variable is set and names none: a test that armed nothing would pass for nothing.
pub fn armed() -> Result<Option<Failpoint>, String> {
    match (std::env::var(VARIABLE), ARMED.as_ref()) {
        (Err(_), _) => Ok(None),
        (Ok(_), Some(armed)) => Ok(Some(armed.point)),
        (Ok(value), None) => {
            let names = Failpoint::ALL.map(Failpoint::name).join(", ");
            Err(format!(
                "{VARIABLE}={value}: not one of {names}, with an optional :count, and :panic after it"
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failpoint_is_named_with_an_optional_count() {
        assert_eq!(parse("after_commit"), Some((Failpoint::AfterCommit, 1, false)));
        assert_eq!(parse("before_apply:7"), Some((Failpoint::BeforeApply, 7, false)));
        assert_eq!(parse("before_apply:7:panic"), Some((Failpoint::BeforeApply, 7, true)));
        for value in ["", "after", "after_commit:0", "after_commit:x", ":1"] {
            assert_eq!(parse(value), None, "{value:?}");
        }
    }
}
