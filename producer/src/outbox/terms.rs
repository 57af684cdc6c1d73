//! When a command may be applied, and what its caller says of itself: the headers that a call adds
//! to its command.
//!
//! Times are the caller's wish, and the database's clock decides when the command's turn comes.
//! What cannot be fulfilled by this machine's clock is refused before anything is sent.

use std::time::{Duration, SystemTime};

use farwrite_schemas::{CONTEXT_MAX_BYTES, HEADER_TIME_MAX_MS, headers};
use serde::Serialize;

use crate::outbox::invalid::InvalidCommand;

/// A point in time, or one that is counted from the verb's call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum CallTime {
    At(SystemTime),
    In(Duration),
}

/// What a call asks for its command: times as the caller gave them.
#[derive(Clone, Debug, Default)]
pub(crate) struct CallTerms {
    pub(crate) expires: Option<CallTime>,
    pub(crate) not_before: Option<CallTime>,
    pub(crate) context: Option<Box<str>>,
}

/// What the command's headers say: times as points in time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Terms {
    pub(crate) expires_at_ms: Option<u64>,
    pub(crate) not_before_ms: Option<u64>,
    pub(crate) context: Option<Box<str>>,
}

impl CallTerms {
    /// Counts from `now`, and checks what can be checked before anything is sent.
    pub(crate) fn terms(self, now: SystemTime) -> Result<Terms, InvalidCommand> {
        let Self { expires, not_before, context } = self;
        let expires_at_ms = expires
            .map(|moment| moment.unix_ms(now, headers::EXPIRES_AT, Duration::ZERO))
            .transpose()?;
        // Rounded up: not a moment too early.
        let almost_a_ms = Duration::from_nanos(999_999);
        let not_before_ms = not_before
            .map(|moment| moment.unix_ms(now, headers::NOT_BEFORE, almost_a_ms))
            .transpose()?;
        if let Some(expires_at_ms) = expires_at_ms {
            let now_ms = CallTime::At(now).unix_ms(now, headers::EXPIRES_AT, Duration::ZERO)?;
            if expires_at_ms <= now_ms {
                return Err(InvalidCommand::Expired { expires_at_ms });
            }
            if let Some(not_before_ms) = not_before_ms.filter(|start| expires_at_ms <= *start) {
                return Err(InvalidCommand::ExpiresFirst { expires_at_ms, not_before_ms });
            }
        }
        Ok(Terms { expires_at_ms, not_before_ms, context })
    }
}

impl CallTime {
    fn unix_ms(
        self,
        now: SystemTime,
        header: &'static str,
        round: Duration,
    ) -> Result<u64, InvalidCommand> {
        let at = match self {
            Self::At(at) => Some(at),
            Self::In(duration) => now.checked_add(duration),
        };
        at.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok()?.checked_add(round))
            .map(|since| since.as_millis())
            .filter(|&ms| ms <= HEADER_TIME_MAX_MS.unsigned_abs().into())
            .and_then(|ms| u64::try_from(ms).ok())
            .ok_or(InvalidCommand::Time { header })
    }
}

/// Writes a context as its header carries it.
pub(crate) fn context(context: impl Serialize) -> Result<Box<str>, InvalidCommand> {
    // A header is one line. Within a string of JSON a line's end is an escape, so that it stands
    // between values only.
    let text = serde_json::to_string(&context)?.replace(['\n', '\r'], " ");
    let is_object =
        serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text).is_ok();
    if is_object && text.len() <= CONTEXT_MAX_BYTES {
        Ok(text.into())
    } else {
        Err(InvalidCommand::Context)
    }
}

#[cfg(test)]
mod tests {

    use serde_json::{json, value::RawValue};

    use super::*;

    fn at_ms(ms: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(ms)
    }

    fn terms(
        expires: Option<CallTime>,
        not_before: Option<CallTime>,
    ) -> Result<Terms, InvalidCommand> {
        CallTerms { expires, not_before, context: None }.terms(at_ms(1_000))
    }

    #[test]
    fn times_are_counted_from_the_call_in_whole_milliseconds() {
        let half = Duration::from_micros(500);
        let made = terms(Some(CallTime::In(half * 5)), Some(CallTime::In(half))).unwrap();
        assert_eq!((made.expires_at_ms, made.not_before_ms), (Some(1_002), Some(1_001)));
        let made = terms(Some(CallTime::At(at_ms(7_000))), Some(CallTime::At(at_ms(10)))).unwrap();
        assert_eq!((made.expires_at_ms, made.not_before_ms), (Some(7_000), Some(10)));
    }

    #[test]
    fn what_could_never_be_applied_is_refused() {
        let in_ms = |ms| Some(CallTime::In(Duration::from_millis(ms)));
        let at = |ms| Some(CallTime::At(at_ms(ms)));
        let expired = |made| matches!(made, Err(InvalidCommand::Expired { .. }));
        assert!(expired(terms(in_ms(0), None)));
        assert!(expired(terms(at(1_000), None)));
        assert!(expired(terms(at(0), in_ms(5))));
        let first = |made| matches!(made, Err(InvalidCommand::ExpiresFirst { .. }));
        assert!(first(terms(in_ms(5), in_ms(5))));
        assert!(first(terms(at(2_000), at(3_000))));
        assert!(terms(in_ms(5), in_ms(4)).is_ok());
        let time = |made| matches!(made, Err(InvalidCommand::Time { .. }));
        let before_1970 = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
        assert!(time(terms(Some(CallTime::At(before_1970)), None)));
        assert!(time(terms(None, Some(CallTime::In(Duration::MAX)))));
        assert!(time(terms(None, at(HEADER_TIME_MAX_MS.unsigned_abs() + 1))));
    }

    #[test]
    fn a_context_is_one_line_of_a_small_object() {
        assert_eq!(&*context(json!({"tenant": "a\nb"})).unwrap(), "{\"tenant\":\"a\\nb\"}");
        let raw = RawValue::from_string("{ \"a\":\n 1 }".to_owned()).unwrap();
        assert_eq!(&*context(raw).unwrap(), "{ \"a\":  1 }");
        let raw = RawValue::from_string("{\"a\":1.10}".to_owned()).unwrap();
        assert_eq!(&*context(raw).unwrap(), "{\"a\":1.10}");
        for none in [json!(null), json!(7), json!([]), json!("a")] {
            assert!(matches!(context(none), Err(InvalidCommand::Context)));
        }
        let fitting = json!({ "a": "x".repeat(CONTEXT_MAX_BYTES - "{\"a\":\"\"}".len()) });
        assert_eq!(context(fitting).unwrap().len(), CONTEXT_MAX_BYTES);
        let larger = json!({ "a": "x".repeat(CONTEXT_MAX_BYTES) });
        assert!(matches!(context(larger), Err(InvalidCommand::Context)));
    }
}
