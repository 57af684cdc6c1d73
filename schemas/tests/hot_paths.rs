//! What a command's way costs, for `loadtest/counts.sh`: it counts the instructions of the functions
//! here whose names begin with `hot`, each called a thousand times. They run as tests, too.

use std::hint::black_box;

use farwrite_schemas::{
    Bookmark, CommandId, Epoch, Lsn, Outcome, Reply, Timeline, decode_envelope, headers,
};
use serde_json::value::RawValue;

const TIMES: usize = 1_000;

#[inline(never)]
fn hot_read_a_command(id: &str, body: &str) {
    let header = |name: &str| match name {
        headers::COMMAND_ID => Some(id),
        headers::KEY => Some("k000001"),
        _ => None,
    };
    let subject = "farwrite.shop.cmd.jfk.order.place";
    black_box(decode_envelope(subject, header, body.as_bytes()).is_ok());
}

#[inline(never)]
fn hot_write_a_reply(reply: &Reply) {
    black_box(reply.encode().is_ok());
}

#[inline(never)]
fn hot_read_a_reply(reply: &[u8]) {
    black_box(Reply::decode(reply).is_ok());
}

#[test]
fn reading_a_command_of_256_bytes() {
    let id = CommandId::now().to_string();
    let body = format!("{{\"value\":\"{}\"}}", "v".repeat(244));
    (0..TIMES).for_each(|_| hot_read_a_command(black_box(&id), black_box(&body)));
}

#[test]
fn reading_a_command_of_2048_bytes() {
    let id = CommandId::now().to_string();
    let body = format!("{{\"value\":\"{}\"}}", "v".repeat(2_036));
    (0..TIMES).for_each(|_| hot_read_a_command(black_box(&id), black_box(&body)));
}

fn reply() -> Reply {
    let output = RawValue::from_string("{\"n\":1}".to_owned()).unwrap();
    let bookmark = Bookmark {
        database: "shop".parse().unwrap(),
        timeline: Timeline(1),
        epoch: Epoch(CommandId::now().uuid()),
        lsn: Lsn(0x16_B374_D848),
    };
    Reply { id: CommandId::now(), outcome: Outcome::Applied { output }, bookmark, record: None }
}

#[test]
fn writing_a_reply() {
    let reply = reply();
    (0..TIMES).for_each(|_| hot_write_a_reply(black_box(&reply)));
}

#[test]
fn reading_a_reply() {
    let reply = reply().encode().unwrap();
    (0..TIMES).for_each(|_| hot_read_a_reply(black_box(&reply)));
}
