//! JSON Schemas that a registered function's bodies are checked with, before anything runs.

use std::sync::Arc;

use farwrite_schemas::Rejection;
use jsonschema::Validator;
use serde_json::Value;

/// A schema, compiled once for a lane.
#[derive(Clone, Debug)]
pub(crate) struct JsonSchema(Result<Arc<Validator>, Arc<str>>);

/// What a check says.
#[derive(Debug)]
pub(crate) enum BodyCheck {
    /// The body fits.
    Fits,
    /// It does not: the command is rejected.
    Refused(Rejection),
    /// The schema itself is none, so that nothing can be checked until it is registered anew.
    BadSchema(Rejection),
}

impl JsonSchema {
    /// Compiles a schema. It may refer to itself, and to nothing that would have to be fetched.
    pub(crate) fn new(schema: &str) -> Self {
        let compiled = serde_json::from_str::<Value>(schema)
            .map_err(|error| error.to_string())
            .and_then(|schema| jsonschema::validator_for(&schema).map_err(|e| e.to_string()));
        Self(compiled.map(Arc::new).map_err(Into::into))
    }

    /// Checks a body. The message names the place and the rule, and not the value.
    pub(crate) fn check(&self, body: &[u8]) -> BodyCheck {
        let validator = match &self.0 {
            Ok(validator) => validator,
            Err(error) => {
                let message =
                    format!("the JSON Schema that it is registered with is none: {error}");
                return BodyCheck::BadSchema(Rejection::new("bad_schema", message));
            }
        };
        let body: Value = match serde_json::from_slice(body) {
            Ok(body) => body,
            Err(error) => return BodyCheck::Refused(bad_body(&error.to_string())),
        };
        match validator.iter_errors(&body).next() {
            None => BodyCheck::Fits,
            Some(error) => {
                let place = error.instance_path().to_string();
                let place = if place.is_empty() { "the body".to_owned() } else { place };
                BodyCheck::Refused(bad_body(&format!("{place}: {}", error.masked())))
            }
        }
    }
}

fn bad_body(reason: &str) -> Rejection {
    Rejection::new("bad_body", format!("the body is not of the command's form: {reason}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_body_that_does_not_fit_is_told_where_and_why_without_its_value() {
        let schema = json!({
            "type": "object",
            "required": ["n"],
            "properties": {"n": {"type": "integer", "minimum": 1}},
        });
        let schema = JsonSchema::new(&schema.to_string());
        assert!(matches!(schema.check(b"{\"n\": 7}"), BodyCheck::Fits));
        for (body, place) in
            [(&b"{\"n\": \"secret\"}"[..], "/n"), (b"{\"n\": -4711}", "/n"), (b"{}", "the body")]
        {
            let BodyCheck::Refused(rejection) = schema.check(body) else { panic!("it fits") };
            assert_eq!(rejection.code, "bad_body");
            assert!(rejection.message.contains(place), "{rejection}");
            assert!(!rejection.message.contains("secret"), "{rejection}");
            assert!(!rejection.message.contains("4711"), "{rejection}");
        }
    }

    #[test]
    fn a_schema_that_is_none_or_must_be_fetched_is_told_apart() {
        for schema in [
            r#"{"type": 7}"#,
            r#"{"$ref": "https://example.com/schema.json"}"#,
            r#"{"maximum": 1e400}"#,
        ] {
            assert!(matches!(JsonSchema::new(schema).check(b"{}"), BodyCheck::BadSchema(_)));
        }
    }
}
