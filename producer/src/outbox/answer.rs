//! JetStream's answer to a publish, as what it is: an acknowledgement, a refusal, or neither.

use serde::Deserialize;

use crate::outbox::failure::{AttemptFailure, Reason, Refusal};

/// The stream has stored the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Acknowledgement {
    pub(crate) stream: String,
    pub(crate) sequence: u64,
    pub(crate) duplicate: bool,
}

/// JetStream's answer to a publish: an acknowledgement or an error, told apart by what is there.
#[derive(Deserialize)]
struct PublishAnswer {
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
/// The refusal, or [`AttemptFailure::Garbled`] when it is neither.
pub(crate) fn read_answer(payload: &[u8]) -> Result<Acknowledgement, AttemptFailure> {
    match decode(payload)? {
        PublishAnswer { stream: Some(stream), seq: Some(sequence), duplicate, .. } => {
            Ok(Acknowledgement { stream, sequence, duplicate })
        }
        PublishAnswer { .. } => Err(AttemptFailure::Garbled),
    }
}

/// Reads JetStream's answer to the commit of an atomic batch of `count` messages.
///
/// # Errors
/// The refusal, or [`AttemptFailure::Garbled`] when it is neither: also where a server that knows no
/// batches acknowledged the last message alone.
pub(crate) fn read_batch_answer(
    payload: &[u8],
    id: &str,
    count: usize,
) -> Result<StoredBatch, AttemptFailure> {
    let PublishAnswer { stream, seq, batch, count: stored, .. } = decode(payload)?;
    let is_whole = batch.as_deref() == Some(id)
        && stored.is_some_and(|stored| usize::try_from(stored) == Ok(count));
    let first = seq.zip(stored).and_then(|(last, stored)| (last + 1).checked_sub(stored));
    match (stream, first) {
        (Some(stream), Some(first_sequence)) if is_whole => {
            Ok(StoredBatch { stream, first_sequence })
        }
        _ => Err(AttemptFailure::Garbled),
    }
}

fn decode(payload: &[u8]) -> Result<PublishAnswer, AttemptFailure> {
    let mut answer: PublishAnswer =
        serde_json::from_slice(payload).map_err(|_| AttemptFailure::Garbled)?;
    let Some(ErrorPart { err_code: code, description }) = answer.error.take() else {
        return Ok(answer);
    };
    let reason = reason(code, &description);
    Err(AttemptFailure::Refused(Refusal { reason, code, description }))
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
    use async_nats::Subject;

    use super::*;
    use crate::{journal::Unjournaled, outbox::failure::FailureVerdict};

    fn refused(code: u64, description: &str) -> AttemptFailure {
        let payload = serde_json::json!({"error": {
            "code": 503, "err_code": code, "description": description,
        }});
        read_answer(payload.to_string().as_bytes()).unwrap_err()
    }

    #[test]
    fn every_failure_has_its_verdict() {
        let inbox = Subject::from_static("i");
        let deaf = |sent| AttemptFailure::Deaf { inbox: inbox.clone(), sent };
        let full = "maximum messages exceeded";
        let cases = [
            // failure, label: again, may be stored, settled
            (AttemptFailure::NotConnected, "not_connected", (true, false, false)),
            (AttemptFailure::NotSent, "not_sent", (true, false, false)),
            (AttemptFailure::Closed, "closed", (false, false, false)),
            (AttemptFailure::Unanswered, "unanswered", (true, true, false)),
            (AttemptFailure::Garbled, "garbled", (true, true, false)),
            (AttemptFailure::NoStream, "no_stream", (true, false, false)),
            (AttemptFailure::OverServerLimit { limit_bytes: 9 }, "too_large", (false, false, true)),
            (AttemptFailure::Denied, "not_permitted", (false, false, true)),
            (deaf(false), "not_permitted", (false, false, false)),
            (
                AttemptFailure::Unjournaled(Unjournaled::Full { commands: 1, bytes: 2 }),
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
            let verdict = FailureVerdict { again, maybe_stored, settled };
            assert_eq!(failure.verdict(), verdict, "{failure:?}");
            assert_eq!(failure.as_str(), word);
        }
    }

    #[test]
    fn an_answer_is_read_as_what_it_is() {
        let stored = read_answer(br#"{"stream":"S","seq":7,"domain":"","duplicate":true}"#);
        let expected = Acknowledgement { stream: "S".to_owned(), sequence: 7, duplicate: true };
        assert_eq!(stored.unwrap(), expected);
        assert!(!read_answer(br#"{"stream":"S","seq":7}"#).unwrap().duplicate);
        for payload in [&b""[..], b"{}", b"[]", b"{\"stream\":\"S\"}"] {
            assert!(matches!(read_answer(payload), Err(AttemptFailure::Garbled)), "{payload:?}");
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
            assert!(matches!(read(payload), Err(AttemptFailure::Garbled)), "{payload:?}");
        }
        let refused = read(br#"{"error":{"code":400,"err_code":10201},"stream":"S","seq":0}"#);
        assert!(matches!(refused, Err(AttemptFailure::Refused(Refusal { code: 10201, .. }))));
    }
}
