//! The checker of histories: what is good passes, and what breaks a law is found by that law.
//!
//! Good histories come from a small model of the house (`model`); each law has a way to spoil one
//! (`spoil`). Nothing here runs a server.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where, by its panic")]

mod excused;
mod found;
mod model;
mod reading;
mod spoil;

use std::collections::BTreeSet;

use farwrite_checker::{self as check, CheckReport, History, Law};
use serde_json::Value;

/// A history, line by line.
type Lines = Vec<Value>;

/// The lines at even distances, in their order.
fn text(lines: &[Value]) -> String {
    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        let mut line = line.clone();
        if let Some(t_us) = line.get_mut("t_us") {
            *t_us = Value::from(index * 10);
        }
        text += &format!("{line}\n");
    }
    text
}

fn report(lines: &[Value]) -> CheckReport {
    let history = History::read(text(lines).as_bytes()).unwrap();
    check::check(&history)
}

/// The laws that a history breaks.
fn broken(lines: &[Value]) -> BTreeSet<Law> {
    report(lines).violations.iter().map(|violation| violation.law).collect()
}
