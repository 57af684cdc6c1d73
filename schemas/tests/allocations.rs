//! How often a command's way asks for memory, and for how much: counts, which are the same on every
//! machine. A body is never copied.

#![allow(unsafe_code)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use farwrite_schemas::{
    Bookmark, CommandId, Envelope, Epoch, Lsn, Outcome, Reply, Timeline, decode_envelope, headers,
};
use serde_json::value::RawValue;

/// Counts what its own thread asks for.
struct Counting;

thread_local! {
    static COUNT: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

fn count(bytes: usize) {
    // A thread that ends has no counter any more.
    let _ = COUNT.try_with(|count| {
        let (times, total) = count.get();
        count.set((times + 1, total + bytes));
    });
}

// SAFETY: everything is left to the system's allocator, with the caller's arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count(bytes);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Times and bytes that something asks for.
fn cost<T>(of: impl FnOnce() -> T) -> (usize, usize, T) {
    let before = COUNT.get();
    let value = of();
    let after = COUNT.get();
    (after.0 - before.0, after.1 - before.1, value)
}

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
    let (times, bytes, _) = cost(|| decode(&id, &small));
    assert!(times <= 3, "{times} allocations: origin, name and key are needed");
    let (again, more, _) = cost(|| decode(&id, &large));
    assert_eq!((times, bytes), (again, more), "the body was copied");
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
    let (times, _, bytes) = cost(|| reply.encode().unwrap());
    assert!(times <= 8, "{times} allocations for {} bytes", bytes.len());
    let (times, _, _) = cost(|| Reply::decode(&bytes).unwrap());
    assert!(times <= 8, "{times} allocations to read it");
}
