//! What acts did, and what is paused, as it is printed.

use std::io::Result;

use farwrite_schemas::CommandId;
use serde_json::json;

use crate::worker::operate::{Chosen, Letter, LetterLeft, Pause, PauseTarget};

use super::{
    operation::OperationEnd,
    print::{Printer, age, or_dash, plain, table},
    records::{Printed, nothing},
};

/// Letters that stay where they are.
pub(super) fn left(left: &[LetterLeft], printer: Printer) -> Result<()> {
    left.iter().try_for_each(|left| {
        printer.say(left, || {
            let id = left.id.map(|id| format!(", id {id}")).unwrap_or_default();
            format!("sequence {}{id}: {}", left.sequence, plain(&left.left))
        })
    })
}

pub(super) fn requeued(
    chosen: &Chosen,
    done: i64,
    left: usize,
    printer: Printer,
) -> Result<OperationEnd> {
    printer.say(&json!({ "act": "requeue", "done": done, "left": left }), || match left {
        0 => format!("requeued {done} dead letters"),
        _ => format!("requeued {done} dead letters; {left} stay where they are"),
    })?;
    Ok(match (chosen.seen(), left) {
        (0, _) => nothing::<Letter>(chosen),
        (_, 0) => OperationEnd::Done,
        _ => OperationEnd::Partly,
    })
}

/// An act that was done to every record that was chosen.
pub(super) fn done<R: Printed>(
    act: &str,
    past: &str,
    chosen: &Chosen,
    done: i64,
    printer: Printer,
) -> Result<OperationEnd> {
    printer.say(&json!({ "act": act, "done": done }), || format!("{past} {done} {}s", R::WHAT))?;
    Ok(if done == 0 { nothing::<R>(chosen) } else { OperationEnd::Done })
}

pub(super) fn cancelled(
    id: CommandId,
    ended: Option<&str>,
    printer: Printer,
) -> Result<OperationEnd> {
    let object = json!({ "act": "cancel", "id": id, "cancelled": ended.is_none(), "ended": ended });
    printer.say(&object, || match ended {
        None => format!("{id} is cancelled: it is recorded as rejected, and will not be applied"),
        Some(ended) => format!("{id} was not cancelled: it had ended before, as {ended}"),
    })?;
    Ok(if ended.is_none() { OperationEnd::Done } else { OperationEnd::Partly })
}

pub(super) fn paused(target: &PauseTarget, new: bool, printer: Printer) -> Result<OperationEnd> {
    let (command, key) = target.columns();
    let object = json!({ "act": "pause", "command": command, "key": key, "new": new });
    let text = if new { "is paused" } else { "was paused already, and its reason stays" };
    printer.say(&object, || format!("{} {text}", what(command, key)))?;
    Ok(OperationEnd::Done)
}

pub(super) fn resumed(target: &PauseTarget, found: bool, printer: Printer) -> Result<OperationEnd> {
    let (command, key) = target.columns();
    let object = json!({ "act": "resume", "command": command, "key": key, "found": found });
    let text = if found { "is resumed" } else { "was not paused" };
    printer.say(&object, || format!("{} {text}", what(command, key)))?;
    Ok(if found { OperationEnd::Done } else { OperationEnd::Partly })
}

pub(super) fn pauses(pauses: &[Pause], printer: Printer) -> Result<OperationEnd> {
    if printer.json {
        pauses.iter().try_for_each(|pause| printer.object(pause))?;
        return Ok(OperationEnd::Done);
    }
    let row = |pause: &Pause| {
        vec![
            age(pause.age_seconds),
            or_dash(pause.command.as_ref()),
            or_dash(pause.key.as_ref()),
            pause.paused_by.clone(),
            pause.reason.clone(),
        ]
    };
    let rows: Vec<_> = pauses.iter().map(row).collect();
    printer.text(&table(&["AGE", "COMMAND", "KEY", "BY", "REASON"], &rows))?;
    Ok(OperationEnd::Done)
}

/// What is paused, in two words.
pub(super) fn what(command: Option<&str>, key: Option<&str>) -> String {
    match (command, key) {
        (Some(command), _) => format!("command {}", plain(command)),
        (None, key) => format!("key {}", plain(key.unwrap_or_default())),
    }
}
