//! What a command's way costs, in counts, which are the same on every machine: how often it asks for
//! memory, and for how much (a body is never copied); and for `loadtest/counts.sh`, which counts the
//! instructions of the functions here whose names begin with `hot`, something to count.

use std::hint::black_box;

use allocation_counter::measure;
use farwrite_schemas::{
    Bookmark, CommandId, CommandName, Envelope, Epoch, Fingerprint, Key, Lsn, Outcome, Reply,
    Timeline, decode_envelope, headers,
};
use serde_json::value::RawValue;

fn body(bytes: usize) -> String {
    format!("{{\"value\":\"{}\"}}", "v".repeat(bytes - 12))
}

fn decode(id: &str, body: &str) -> Envelope {
    let headers = [(headers::COMMAND_ID, id), (headers::KEY, "k000001")];
    decode_envelope("farwrite.shop.cmd.jfk.order.place", headers, body.as_bytes())
        .expect("a command")
}

#[test]
fn a_command_is_read_with_an_allocation_for_each_of_its_three_names() {
    let id = CommandId::now().to_string();
    let (small, large) = (body(256), body(2_048));
    let cost = measure(|| drop(decode(&id, &small)));
    assert!(cost.count_total <= 3, "{} allocations: origin, name and key", cost.count_total);
    assert_eq!(cost, measure(|| drop(decode(&id, &large))), "the body was copied");
}

fn reply() -> Reply {
    let output = RawValue::from_string("{\"n\":1}".to_owned()).expect("JSON");
    let bookmark = Bookmark {
        database: "shop".parse().expect("a name"),
        timeline: Timeline(1),
        epoch: Epoch(CommandId::now().uuid()),
        lsn: Lsn(0x16_B374_D848),
    };
    Reply { id: CommandId::now(), outcome: Outcome::Applied { output }, bookmark, record: None }
}

#[test]
fn a_reply_is_written_into_one_buffer_and_its_bookmark() {
    let reply = reply();
    let mut bytes = Vec::new();
    let cost = measure(|| bytes = reply.encode().unwrap());
    assert!(cost.count_total <= 8, "{} allocations for {} bytes", cost.count_total, bytes.len());
    let cost = measure(|| drop(Reply::decode(&bytes).unwrap()));
    assert!(cost.count_total <= 8, "{} allocations to read it", cost.count_total);
}

#[test]
fn a_fingerprint_is_taken_where_the_body_lies() {
    let (name, key) = (CommandName::new("order.place").unwrap(), Key::new("k000001").unwrap());
    let body = body(2_048);
    let cost = measure(|| {
        let _ = Fingerprint::of(&name, 1, Some(&key), body.as_bytes());
    });
    assert_eq!(cost.count_total, 0);
}

const TIMES: usize = 1_000;

#[inline(never)]
fn hot_read_a_command(id: &str, body: &str) {
    black_box(decode(id, body));
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
    let (id, body) = (CommandId::now().to_string(), body(256));
    (0..TIMES).for_each(|_| hot_read_a_command(black_box(&id), black_box(&body)));
}

#[test]
fn reading_a_command_of_2048_bytes() {
    let (id, body) = (CommandId::now().to_string(), body(2_048));
    (0..TIMES).for_each(|_| hot_read_a_command(black_box(&id), black_box(&body)));
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
