//! Dead letters, parked commands and single commands as they are printed.

use std::io::Result;

use farwrite_schemas::CommandId;
use serde_json::{json, value::RawValue};

use crate::worker::operate::{
    Chosen, FoundCommand, Letter, OperatorRecord, RecordsPage, WaitingCommand,
};

use super::{
    operation::OperationEnd,
    print::{Printer, age, first_line, or_dash, plain, table},
};

/// How a record looks to people.
pub(super) trait Printed: OperatorRecord {
    /// What it is called.
    const WHAT: &'static str;
    /// The heads of the columns of a list.
    const HEAD: &'static [&'static str];
    /// Its row in a list.
    fn row(&self) -> Vec<String>;
    /// Names and values under each other.
    fn lines(&self) -> Vec<(&'static str, String)>;
    /// Its headers, its body where that is JSON, and its body as it came.
    fn message(&self) -> (Option<&RawValue>, Option<&RawValue>, &[u8]);
}

pub(super) fn list<R: Printed>(page: &RecordsPage<R>, printer: Printer) -> Result<OperationEnd> {
    if printer.json {
        page.records.iter().try_for_each(|record| printer.object(record))?;
    } else {
        let rows: Vec<_> = page.records.iter().map(R::row).collect();
        printer.text(&table(R::HEAD, &rows))?;
    }
    if page.more {
        eprintln!("there are more: --limit N lists them");
    }
    Ok(OperationEnd::Done)
}

pub(super) fn show<R: Printed>(record: &R, printer: Printer) -> Result<()> {
    printer.say(record, || {
        let lines = record.lines();
        let mut text: String =
            lines.iter().map(|(name, value)| format!("{name:<14}{}\n", plain(value))).collect();
        let (headers, json, body) = record.message();
        let headers: Vec<(String, String)> =
            headers.and_then(|json| serde_json::from_str(json.get()).ok()).unwrap_or_default();
        for (name, value) in headers {
            text.push_str(&format!("{:<14}{}: {}\n", "header", plain(&name), plain(&value)));
        }
        let (name, body) = match (json, std::str::from_utf8(body)) {
            (Some(json), _) => ("body", plain(json.get())),
            (None, Ok(words)) => ("body, no JSON", plain(words)),
            (None, Err(_)) => ("body, in hex", body.iter().map(|b| format!("{b:02x}")).collect()),
        };
        text + &format!("{name:<14}{body}\n")
    })
}

/// How showing ended.
pub(super) fn shown<R: Printed>(chosen: &Chosen) -> OperationEnd {
    if chosen.seen() == 0 { nothing::<R>(chosen) } else { OperationEnd::Done }
}

/// Nothing was found. That is in order, unless single commands were named.
pub(super) fn nothing<R: Printed>(chosen: &Chosen) -> OperationEnd {
    eprintln!("no {} matches", R::WHAT);
    if chosen.names_some() { OperationEnd::Partly } else { OperationEnd::Done }
}

impl Printed for Letter {
    const WHAT: &'static str = "dead letter";
    const HEAD: &'static [&'static str] =
        &["AGE", "SEQUENCE", "COMMAND", "KEY", "REASON", "ATTEMPTS", "ID", "MESSAGE"];

    fn row(&self) -> Vec<String> {
        vec![
            age(self.age_seconds),
            self.sequence.to_string(),
            or_dash(self.command.as_ref()),
            or_dash(self.key.as_ref()),
            self.reason.clone(),
            or_dash(self.attempts.as_ref()),
            or_dash(self.id.as_ref()),
            first_line(&self.message),
        ]
    }

    fn lines(&self) -> Vec<(&'static str, String)> {
        vec![
            ("stream", or_dash(self.stream.as_ref())),
            ("sequence", self.sequence.to_string()),
            ("id", or_dash(self.id.as_ref())),
            ("command", or_dash(self.command.as_ref())),
            ("key", or_dash(self.key.as_ref())),
            ("reason", self.reason.clone()),
            ("message", self.message.clone()),
            ("attempts", or_dash(self.attempts.as_ref())),
            ("dead-lettered", format!("{} ({} ago)", self.dead_lettered_at, age(self.age_seconds))),
            ("published", self.published_at.clone()),
            ("subject", or_dash(self.subject.as_ref())),
        ]
    }

    fn message(&self) -> (Option<&RawValue>, Option<&RawValue>, &[u8]) {
        (self.headers.as_deref(), self.body.as_deref(), &self.body_raw)
    }
}

impl Printed for WaitingCommand {
    const WHAT: &'static str = "parked command";
    const HEAD: &'static [&'static str] =
        &["AGE", "SEQUENCE", "COMMAND", "KEY", "REASON", "ATTEMPTS", "DUE IN", "ID", "MESSAGE"];

    fn row(&self) -> Vec<String> {
        vec![
            age(self.age_seconds),
            self.sequence.to_string(),
            self.command.clone(),
            or_dash(self.key.as_ref()),
            self.reason.clone(),
            self.attempts.to_string(),
            due_in(self),
            self.id.to_string(),
            first_line(&self.failure().map(|failure| failure.message).unwrap_or_default()),
        ]
    }

    fn lines(&self) -> Vec<(&'static str, String)> {
        let error = self.failure().map(|failure| format!("{}: {}", failure.code, failure.message));
        let due = match &self.due_at {
            Some(at) => format!("{at} (in {})", due_in(self)),
            None => "when somebody resumes it".to_owned(),
        };
        vec![
            ("stream", or_dash(self.stream.as_ref())),
            ("sequence", self.sequence.to_string()),
            ("id", self.id.to_string()),
            ("command", self.command.clone()),
            ("version", self.version.to_string()),
            ("key", or_dash(self.key.as_ref())),
            ("reason", self.reason.clone()),
            ("error", or_dash(error.as_ref())),
            ("attempts", self.attempts.to_string()),
            ("ahead", or_dash(self.ahead.as_ref())),
            ("due", due),
            ("parked", format!("{} ({} ago)", self.parked_at, age(self.age_seconds))),
            ("published", self.published_at.clone()),
            ("subject", or_dash(self.subject.as_ref())),
        ]
    }

    fn message(&self) -> (Option<&RawValue>, Option<&RawValue>, &[u8]) {
        (self.headers.as_deref(), self.body.as_deref(), &self.body_raw)
    }
}

fn due_in(parked: &WaitingCommand) -> String {
    parked.due_in_seconds.map_or_else(|| "on resume".to_owned(), age)
}

pub(super) fn found(found: &FoundCommand, printer: Printer) -> Result<OperationEnd> {
    let json = |json: &Option<Box<RawValue>>| json.as_ref().map(|json| plain(json.get()));
    printer.say(found, || {
        let lines = [
            ("id", Some(found.id.to_string())),
            ("status", Some(found.status.clone())),
            ("output", json(&found.output)),
            ("error", json(&found.error)),
            ("reason", found.reason.clone()),
            ("due", found.due_at.clone()),
            ("attempts", Some(or_dash(found.attempts.as_ref()))),
            ("stream", found.stream.clone()),
            ("sequence", found.sequence.map(|sequence| sequence.to_string())),
            ("published", found.published_at.clone()),
            ("settled", found.settled_at.clone()),
        ];
        let lines = lines.into_iter().filter_map(|(name, value)| Some((name, value?)));
        lines.map(|(name, value)| format!("{name:<11}{value}\n")).collect()
    })?;
    Ok(OperationEnd::Done)
}

pub(super) fn not_found(id: CommandId, is_replica: bool, printer: Printer) -> Result<OperationEnd> {
    printer.say(&json!({ "id": id, "status": "unknown" }), || {
        let unknown = format!(
            "{id} is not known here. It may be in the stream and not read yet (see `farwrite status`), or was never \
             accepted, or ended longer ago than the ledger keeps (ledger-keep-hours)."
        );
        let replica = " This is a replica, which may be behind the primary: ask there.";
        if is_replica { unknown + replica } else { unknown }
    })?;
    Ok(OperationEnd::Partly)
}
