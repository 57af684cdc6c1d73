//! Why a message or a row is no outcome that this version reads.

/// A reply is not of the form that this version reads.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplyError {
    /// It is not JSON, or a part has another type.
    #[error("the reply is not of a reply's form: {0}")]
    Json(serde_json::Error),
    /// A part that this outcome needs is missing.
    #[error("the reply has the outcome {outcome:?} but no {missing}")]
    Incomplete {
        /// The outcome's name.
        outcome: String,
        /// The missing part.
        missing: &'static str,
    },
    /// The outcome's name is not known.
    #[error(
        "the reply has the outcome {0:?}, which this version does not know: upgrade the producer"
    )]
    UnknownOutcome(String),
}

impl From<serde_json::Error> for ReplyError {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error)
    }
}
