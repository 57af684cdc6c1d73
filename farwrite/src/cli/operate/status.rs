//! Where a database stands, as it is printed.

use std::io::Result;

use crate::worker::operate::{
    DatabaseStatus, OwnerStatus, Pause, SchemaStatus, StreamStatus, WaitingCount,
};

use super::{
    acts::what,
    operation::OperationEnd,
    print::{Printer, age, plain},
};

pub(super) fn print(status: &DatabaseStatus, printer: Printer) -> Result<OperationEnd> {
    printer.say(status, || text(status))?;
    Ok(if status.is_whole() { OperationEnd::Done } else { OperationEnd::Partly })
}

fn text(status: &DatabaseStatus) -> String {
    let SchemaStatus { version, program_version, required_protocol, program_protocol, .. } =
        &status.schema;
    let mut text = format!(
        "schema        version {version} (this program's: {program_version}), for workers of protocol {required_protocol} (this program's: {program_protocol})\n"
    );
    if status.replica {
        text.push_str("server        a replica: it may be behind the primary\n");
    }
    text.push_str(&match &status.owner {
        Some(owner) => owner_text(owner),
        None => "owner         none yet\n".to_owned(),
    });
    if let Some(error) = &status.nats_error {
        text.push_str(&format!("NATS          PROBLEM: {}\n", plain(error)));
    }
    text.extend(status.streams.iter().map(stream_text));
    text.push_str(&section("parked", &status.parked));
    text.push_str(&section("dead letters", &status.dead_letters));
    if status.pauses.is_empty() {
        text.push_str("paused        nothing\n");
    }
    for pause in &status.pauses {
        let Pause { command, key, reason, paused_by, age_seconds, .. } = pause;
        text.push_str(&format!(
            "paused        {}: {} (by {}, {} ago)\n",
            what(command.as_deref(), key.as_deref()),
            plain(reason),
            plain(paused_by),
            age(*age_seconds)
        ));
    }
    text
}

fn owner_text(owner: &OwnerStatus) -> String {
    let state = match (&owner.released_at, owner.lane_connections) {
        (Some(at), _) => format!("stopped in good order at {at}"),
        (None, Some(0)) => {
            "it has no connections: it is starting again, or gone without a word".to_owned()
        }
        (None, Some(lanes)) => format!("{lanes} lanes are connected"),
        (None, None) => "not stopped".to_owned(),
    };
    format!(
        "owner         {}, of the database {}, since {} ({})\n              {state}\n",
        plain(&owner.worker),
        owner.database,
        owner.taken_at,
        age(owner.age_seconds)
    )
}

fn stream_text(status: &StreamStatus) -> String {
    let StreamStatus { stream, lanes, low_water, high_water, .. } = status;
    let mut text = format!("stream        {stream}\n");
    text.push_str(&format!(
        "  position    {low_water} (the furthest of {lanes} lanes: {high_water})\n"
    ));
    if let Some(last) = status.last_sequence {
        text.push_str(&format!("  last        {last}\n"));
    }
    if let Some(lag) = status.lag_commands {
        let old = status.lag_seconds.map_or_else(
            || "none of them is in the stream any more".to_owned(),
            |seconds| format!("the oldest {} old", age(seconds)),
        );
        let old = if lag == 0 { String::new() } else { format!(", {old}") };
        text.push_str(&format!("  lag         {lag} commands{old}\n"));
    }
    if let (Some(bytes), Some(max_bytes)) = (status.bytes, status.max_bytes) {
        let of = match max_bytes {
            0 => "no limit".to_owned(),
            most => format!("{most}, {} %", bytes.saturating_mul(100) / most),
        };
        let trimmed = status.trim_floor.map_or_else(
            || "nothing was trimmed".to_owned(),
            |floor| format!("trimmed below {floor}"),
        );
        text.push_str(&format!("  bytes       {bytes} (of {of}); {trimmed}\n"));
    }
    if let Some(problem) = &status.problem {
        text.push_str(&format!("  PROBLEM     {}\n", plain(problem)));
    }
    text
}

fn section(name: &str, counts: &[WaitingCount]) -> String {
    if counts.is_empty() {
        return format!("{name:<14}none\n");
    }
    let line = |count: &WaitingCount| {
        let WaitingCount { reason, commands, oldest_age_seconds, .. } = count;
        format!(
            "{name:<14}{commands} {}, the oldest for {}\n",
            plain(reason),
            age(*oldest_age_seconds)
        )
    };
    counts.iter().map(line).collect()
}
