//! How one attempt to publish can fail, and what follows from it.
//!
//! Two questions are asked of every failure, and both are answered by one pure function,
//! [`Failure::verdict`]: may the message have been stored all the same, and is it worth sending
//! again? A retry carries the same id, so that sending again is always safe; it is pointless where
//! the answer would be the same.

use async_nats::Subject;
use serde::Deserialize;

use crate::journal::Unjournaled;

/// An attempt ended without the message being acknowledged.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// The client is not connected: nothing was sent.
    NotConnected,
    /// The client's own queue stayed full: nothing was sent.
    NotSent,
    /// The client was closed and never comes back: nothing was sent.
    Closed,
    /// It was sent, and no answer came in time.
    Unanswered,
    /// An answer came that cannot be read.
    Garbled,
    /// No stream listens to the subject.
    NoStream,
    /// The server takes no message of this size; `limit_bytes` is its limit with headers.
    OverServerLimit { limit_bytes: usize },
    /// The server does not let this connection publish to the subject.
    Denied,
    /// The server does not let this connection listen to its own inbox, so that no answer can
    /// come. `sent` says whether the message went out before that was known.
    Deaf { inbox: Subject, sent: bool },
    /// The stream refused it.
    Refused(Refusal),
    /// It could not be written down in the journal first: nothing was sent.
    Unjournaled(Unjournaled),
}

/// The stream's own words for not storing a message.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    pub(crate) code: u64,
    pub(crate) description: String,
}

/// What a refusal means for the next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The stream holds as much as it may, and discards new messages.
    Full,
    /// The stream's limit for one message.
    TooLarge,
    /// The server or its disk has a bad time; it says so itself.
    Unavailable,
    /// The same id is being stored at this moment: the answer to the other copy decides.
    BeingStored,
    /// Anything else, for example a stream that is sealed.
    Other,
}

/// What follows from a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Whether the same message may be sent again with another result.
    pub(crate) again: bool,
    /// Whether this attempt may have stored the message all the same.
    pub(crate) maybe_stored: bool,
    /// Whether the server has spoken about this very message: then no copy sent before it is
    /// still under way, and the key's order is safe.
    pub(crate) settled: bool,
}

const AGAIN: Verdict = Verdict { again: true, maybe_stored: false, settled: false };
const IN_DOUBT: Verdict = Verdict { again: true, maybe_stored: true, settled: false };
const FINAL: Verdict = Verdict { again: false, maybe_stored: false, settled: true };
const HOPELESS: Verdict = Verdict { again: false, maybe_stored: false, settled: false };

impl Failure {
    /// What follows. No wildcard: a new failure must be judged.
    pub(crate) fn verdict(&self) -> Verdict {
        match self {
            Self::NotConnected | Self::NotSent | Self::NoStream => AGAIN,
            Self::Unanswered | Self::Garbled => IN_DOUBT,
            Self::Closed | Self::Unjournaled(_) => HOPELESS,
            Self::Deaf { sent, .. } => Verdict { maybe_stored: *sent, ..HOPELESS },
            Self::OverServerLimit { .. } | Self::Denied => FINAL,
            Self::Refused(refusal) => match refusal.reason {
                Reason::Full | Reason::Unavailable => AGAIN,
                Reason::BeingStored => IN_DOUBT,
                Reason::TooLarge | Reason::Other => FINAL,
            },
        }
    }

    /// As a metric's label.
    pub(crate) const fn as_str(&self) -> &'static str {
        match self {
            Self::NotConnected => "not_connected",
            Self::NotSent => "not_sent",
            Self::Closed => "closed",
            Self::Unanswered => "unanswered",
            Self::Garbled => "garbled",
            Self::NoStream => "no_stream",
            Self::OverServerLimit { .. } => "too_large",
            Self::Unjournaled(_) => "unjournaled",
            Self::Denied | Self::Deaf { .. } => "not_permitted",
            Self::Refused(refusal) => match refusal.reason {
                Reason::Full => "full",
                Reason::TooLarge => "too_large",
                Reason::Unavailable => "unavailable",
                Reason::BeingStored => "being_stored",
                Reason::Other => "refused",
            },
        }
    }
}

/// The stream has stored the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) stream: String,
    pub(crate) sequence: u64,
    pub(crate) duplicate: bool,
}

/// JetStream's answer to a publish: an acknowledgement or an error, told apart by what is there.
#[derive(Deserialize)]
struct Answer {
    error: Option<ErrorPart>,
    stream: Option<String>,
    seq: Option<u64>,
    #[serde(default)]
    duplicate: bool,
    /// Of an atomic batch only.
    batch: Option<String>,
    count: Option<u64>,
}

/// The stream has stored an atomic batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredBatch {
    pub(crate) stream: String,
    /// The place of its first message; the others follow.
    pub(crate) first_sequence: u64,
}

#[derive(Deserialize)]
struct ErrorPart {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

/// Reads JetStream's answer to a publish.
///
/// # Errors
/// The refusal, or [`Failure::Garbled`] when it is neither.
pub(crate) fn read_answer(payload: &[u8]) -> Result<Stored, Failure> {
    match decode(payload)? {
        Answer { stream: Some(stream), seq: Some(sequence), duplicate, .. } => {
            Ok(Stored { stream, sequence, duplicate })
        }
        Answer { .. } => Err(Failure::Garbled),
    }
}

/// Reads JetStream's answer to the commit of an atomic batch of `count` messages.
///
/// # Errors
/// The refusal, or [`Failure::Garbled`] when it is neither: also where a server that knows no
/// batches acknowledged the last message alone.
pub(crate) fn read_batch_answer(
    payload: &[u8],
    id: &str,
    count: usize,
) -> Result<StoredBatch, Failure> {
    let Answer { stream, seq, batch, count: stored, .. } = decode(payload)?;
    let is_whole = batch.as_deref() == Some(id)
        && stored.is_some_and(|stored| usize::try_from(stored) == Ok(count));
    let first = seq.zip(stored).and_then(|(last, stored)| (last + 1).checked_sub(stored));
    match (stream, first) {
        (Some(stream), Some(first_sequence)) if is_whole => {
            Ok(StoredBatch { stream, first_sequence })
        }
        _ => Err(Failure::Garbled),
    }
}

fn decode(payload: &[u8]) -> Result<Answer, Failure> {
    let mut answer: Answer = serde_json::from_slice(payload).map_err(|_| Failure::Garbled)?;
    let Some(ErrorPart { err_code: code, description }) = answer.error.take() else {
        return Ok(answer);
    };
    let reason = reason(code, &description);
    Err(Failure::Refused(Refusal { reason, code, description }))
}

/// The wildcard is the server's, not ours: its codes are an open list, and an unknown one is
/// reported rather than repeated.
fn reason(code: u64, description: &str) -> Reason {
    match code {
        // "store failed" is the code for a full stream as well as for a broken disk.
        10077 if description.contains("maximum") => Reason::Full,
        // Store failed; cluster not available, no leader; insufficient, storage, memory resources.
        10077 | 10008 | 10009 | 10023 | 10028 | 10047 => Reason::Unavailable,
        10054 => Reason::TooLarge,
        10158 => Reason::BeingStored,
        _ => Reason::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: u64, description: &str) -> Failure {
        let payload = serde_json::json!({"error": {
            "code": 503, "err_code": code, "description": description,
        }});
        read_answer(payload.to_string().as_bytes()).unwrap_err()
    }

    #[test]
    fn every_failure_has_its_verdict() {
        let inbox = Subject::from_static("i");
        let deaf = |sent| Failure::Deaf { inbox: inbox.clone(), sent };
        let full = "maximum messages exceeded";
        let cases = [
            // failure, label: again, may be stored, settled
            (Failure::NotConnected, "not_connected", (true, false, false)),
            (Failure::NotSent, "not_sent", (true, false, false)),
            (Failure::Closed, "closed", (false, false, false)),
            (Failure::Unanswered, "unanswered", (true, true, false)),
            (Failure::Garbled, "garbled", (true, true, false)),
            (Failure::NoStream, "no_stream", (true, false, false)),
            (Failure::OverServerLimit { limit_bytes: 9 }, "too_large", (false, false, true)),
            (Failure::Denied, "not_permitted", (false, false, true)),
            (deaf(false), "not_permitted", (false, false, false)),
            (
                Failure::Unjournaled(Unjournaled::Full { commands: 1, bytes: 2 }),
                "unjournaled",
                (false, false, false),
            ),
            (deaf(true), "not_permitted", (false, true, false)),
            (refused(10077, full), "full", (true, false, false)),
            (refused(10077, "maximum bytes exceeded"), "full", (true, false, false)),
            (refused(10077, "no space left"), "unavailable", (true, false, false)),
            (refused(10008, ""), "unavailable", (true, false, false)),
            (refused(10009, ""), "unavailable", (true, false, false)),
            (refused(10023, ""), "unavailable", (true, false, false)),
            (refused(10028, ""), "unavailable", (true, false, false)),
            (refused(10047, ""), "unavailable", (true, false, false)),
            (refused(10158, ""), "being_stored", (true, true, false)),
            (refused(10054, ""), "too_large", (false, false, true)),
            (refused(10109, "stream is sealed"), "refused", (false, false, true)),
            (refused(0, ""), "refused", (false, false, true)),
        ];
        for (failure, word, (again, maybe_stored, settled)) in cases {
            let verdict = Verdict { again, maybe_stored, settled };
            assert_eq!(failure.verdict(), verdict, "{failure:?}");
            assert_eq!(failure.as_str(), word);
        }
    }

    #[test]
    fn an_answer_is_read_as_what_it_is() {
        let stored = read_answer(br#"{"stream":"S","seq":7,"domain":"","duplicate":true}"#);
        let expected = Stored { stream: "S".to_owned(), sequence: 7, duplicate: true };
        assert_eq!(stored.unwrap(), expected);
        assert!(!read_answer(br#"{"stream":"S","seq":7}"#).unwrap().duplicate);
        for payload in [&b""[..], b"{}", b"[]", b"{\"stream\":\"S\"}"] {
            assert!(matches!(read_answer(payload), Err(Failure::Garbled)), "{payload:?}");
        }
    }

    #[test]
    fn a_batch_is_stored_only_where_the_answer_names_it_whole() {
        let read = |payload: &[u8]| read_batch_answer(payload, "b", 3);
        let stored = read(br#"{"stream":"S","seq":7,"batch":"b","count":3}"#).unwrap();
        assert_eq!(stored, StoredBatch { stream: "S".to_owned(), first_sequence: 5 });
        for payload in [
            &br#"{"stream":"S","seq":7}"#[..],
            br#"{"stream":"S","seq":7,"batch":"c","count":3}"#,
            br#"{"stream":"S","seq":7,"batch":"b","count":2}"#,
            br#"{"stream":"S","seq":1,"batch":"b","count":3}"#,
            b"",
        ] {
            assert!(matches!(read(payload), Err(Failure::Garbled)), "{payload:?}");
        }
        let refused = read(br#"{"error":{"code":400,"err_code":10201},"stream":"S","seq":0}"#);
        assert!(matches!(refused, Err(Failure::Refused(Refusal { code: 10201, .. }))));
    }
}
