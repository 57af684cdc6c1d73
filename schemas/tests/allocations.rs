//! How often a command's way asks for memory, and for how much: counts, which are the same on every
//! machine. A body is never copied.

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
    let header = |name: &str| match name {
        headers::COMMAND_ID => Some(id),
        headers::KEY => Some("k000001"),
        _ => None,
    };
    decode_envelope("farwrite.shop.cmd.jfk.order.place", header, body.as_bytes())
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

#[test]
fn a_reply_is_written_into_one_buffer_and_its_bookmark() {
    let output = RawValue::from_string("{\"n\":1}".to_owned()).unwrap();
    let bookmark = Bookmark {
        database: "shop".parse().unwrap(),
        timeline: Timeline(1),
        epoch: Epoch(CommandId::now().uuid()),
        lsn: Lsn(0x16_B374_D848),
    };
    let reply = Reply {
        id: CommandId::now(),
        outcome: Outcome::Applied { output },
        bookmark,
        record: None,
    };
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
