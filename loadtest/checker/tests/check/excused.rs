//! Small histories at the edges of the laws: what a failover, a fault or a new session excuses, and
//! what it does not.

use std::collections::BTreeSet;

use farwrite_checker::Law;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Lines, broken, report};

const A: Uuid = Uuid::from_u128(0xA);
const B: Uuid = Uuid::from_u128(0xB);

fn history(done: &[Value], finals: &[Value]) -> Lines {
    let mut lines = vec![json!({"farwrite_history": 1, "seed": 7, "started": "now"})];
    lines.extend_from_slice(done);
    lines.extend_from_slice(finals);
    lines.push(json!({"final": "end"}));
    lines
}

fn start(op: u64, id: Uuid) -> Value {
    json!({"t_us": 0, "op": op, "start": "write", "client": "c", "region": "far", "id": id, "key": "k", "body": {}})
}

fn end(op: u64, end: &str, visible: bool) -> Value {
    json!({"t_us": 0, "op": op, "end": end, "visible": visible})
}

fn read(op: u64, region: &str, bookmark: bool) -> Value {
    json!({"t_us": 0, "op": op, "start": "read", "client": "c", "region": region, "key": "k", "bookmark": bookmark})
}

fn saw(op: u64, n: u64, last: Option<Uuid>) -> Value {
    json!({"t_us": 0, "op": op, "end": "read", "n": n, "last": last})
}

fn fault(kind: &str) -> Value {
    json!({"t_us": 0, "event": "fault", "kind": kind, "what": "text"})
}

fn healed(kind: &str) -> Value {
    json!({"t_us": 0, "event": "healed", "kind": kind})
}

fn superseded() -> Value {
    json!({"t_us": 0, "client": "c", "event": "superseded"})
}

fn outcome(id: Uuid, outcome: &str) -> Value {
    json!({"final": "outcome", "id": id, "outcome": outcome})
}

fn effect(n: u64, id: Uuid) -> Value {
    json!({"final": "effect", "key": "k", "n": n, "id": id})
}

fn applied() -> Vec<Value> {
    vec![outcome(A, "applied"), effect(1, A)]
}

fn judged(done: &[Value], finals: &[Value]) -> Vec<Law> {
    broken(&history(done, finals)).into_iter().collect()
}

/// What a caller was told, what is there in the end, and what that breaks without a failover and with
/// one.
#[test]
fn after_a_failover_a_command_may_be_applied_or_rejected_after_all() {
    let told = ["applied", "rejected", "expired", "dead_lettered"];
    for was in told {
        for is in told {
            let mut finals = vec![outcome(A, is)];
            finals.extend((is == "applied").then(|| effect(1, A)));
            let calm = [start(1, A), end(1, was, false)];
            let lost = [start(1, A), end(1, was, false), fault("failover"), healed("failover")];
            let crash = [start(1, A), end(1, was, false), fault("crash"), healed("crash")];
            let before = [fault("failover"), healed("failover"), start(1, A), end(1, was, false)];
            let during = [fault("failover"), start(1, A), end(1, was, false), healed("failover")];
            let broken = match (was, is) {
                _ if was == is => vec![],
                (_, "expired") => vec![Law::OutcomeExpiredLater],
                _ => vec![Law::OutcomeChanged],
            };
            let excused = matches!(is, "applied" | "rejected");
            let broken_by_lost = if excused { vec![] } else { broken.clone() };
            assert_eq!(judged(&calm, &finals), broken, "{was}, {is}");
            assert_eq!(judged(&crash, &finals), broken, "{was}, {is}, crash");
            assert_eq!(judged(&before, &finals), broken, "{was}, {is}, failover before");
            assert_eq!(judged(&during, &finals), broken_by_lost, "{was}, {is}, failover during");
            assert_eq!(judged(&lost, &finals), broken_by_lost, "{was}, {is}, failover after");
        }
    }
}

#[test]
fn an_accepted_command_needs_an_outcome_and_an_unknown_one_does_not() {
    for (word, needs) in [
        ("accepted", true),
        ("superseded", true),
        ("applied", true),
        ("unknown", false),
        ("refused", false),
    ] {
        let broken = judged(&[start(1, A), end(1, word, false)], &[]);
        assert_eq!(broken, if needs { vec![Law::OutcomeMissing] } else { vec![] }, "{word}");
    }
    assert_eq!(judged(&[start(1, A)], &[]), [], "a killed client");
    let message = json!({"final": "message", "sequence": 1, "id": A, "key": "k"});
    assert_eq!(judged(&[start(1, A)], &[message]), [Law::OutcomeMissing]);
}

#[test]
fn a_command_that_was_refused_once_and_sent_again_may_have_an_outcome() {
    let twice = [start(1, A), end(1, "refused", false), start(2, A)];
    assert_eq!(judged(&twice, &applied()), []);
    let once = [start(1, A), end(1, "refused", false)];
    assert_eq!(judged(&once, &applied()), [Law::OutcomeOfRefused]);
}

#[test]
fn an_effect_is_of_an_applied_command_that_was_sent_with_its_key() {
    let done = [start(1, A), end(1, "accepted", false)];
    assert_eq!(judged(&[], &applied()), [Law::EffectUnasked], "nobody sent it");
    assert_eq!(judged(&done, &[outcome(A, "rejected"), effect(1, A)]), [Law::EffectUnasked]);
    let elsewhere = json!({"final": "effect", "key": "other", "n": 1, "id": A});
    assert_eq!(judged(&done, &[outcome(A, "applied"), elsewhere]), [Law::EffectUnasked]);
}

/// A command that is sent again may have been in the stream since it was sent first.
#[test]
fn a_command_that_is_sent_again_has_its_first_place() {
    let finals = [outcome(A, "applied"), outcome(B, "applied"), effect(1, B), effect(2, A)];
    let a = [start(1, A), end(1, "accepted", false)];
    let again = [&[start(2, B)], &a[..], &[start(3, B), end(3, "applied", false)]].concat();
    let after = [&a[..], &[start(3, B), end(3, "applied", false)]].concat();
    assert_eq!(judged(&again, &finals), []);
    assert_eq!(judged(&after, &finals), [Law::OrderAcknowledged]);
}

#[test]
fn each_command_that_was_overtaken_is_found() {
    let ids = [Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3)];
    let done: Vec<_> = ids.into_iter().zip(1..).map(|(id, op)| start(op, id)).collect();
    let mut finals = Vec::new();
    for ((id, sequence), n) in ids.into_iter().zip([5, 1, 3]).zip(1..) {
        finals.extend([outcome(id, "applied"), effect(n, id)]);
        finals.push(json!({"final": "message", "sequence": sequence, "id": id, "key": "k"}));
        finals.push(json!({"final": "message", "sequence": 9, "id": id, "key": "k"}));
    }
    let report = report(&history(&done, &finals));
    let found: Vec<_> = report.violations.iter().map(|found| (found.law, &found.ids[..])).collect();
    let pair = |later: usize| [ids[0], ids[later]];
    assert_eq!(found, [(Law::OrderStream, &pair(1)[..]), (Law::OrderStream, &pair(2)[..])]);
}

#[test]
fn a_read_with_a_bookmark_shows_what_its_client_wrote_in_this_session() {
    let wrote = [start(1, A), end(1, "applied", false)];
    let none = [read(2, "near", true), saw(2, 0, None)];
    let with =
        |between: &[Value], read: &[Value]| judged(&[&wrote, between, read].concat(), &applied());
    assert_eq!(with(&[], &none), [Law::ReadStale]);
    assert_eq!(with(&[fault("crash"), healed("crash")], &none), [Law::ReadStale]);
    assert_eq!(with(&[superseded()], &none), []);
    assert_eq!(with(&[], &[read(2, "near", false), saw(2, 0, None)]), []);
    let spans = [read(2, "near", true), superseded(), saw(2, 0, None)];
    assert_eq!(with(&[], &spans), [], "it belongs to no session");
    let earlier = [&[read(2, "near", true)], &wrote[..], &[saw(2, 0, None)]].concat();
    assert_eq!(judged(&earlier, &applied()), [], "it began before");
    let lost = [start(2, B), end(2, "superseded", false), read(3, "near", true), saw(3, 0, None)];
    let finals = [&applied()[..], &[outcome(B, "rejected")]].concat();
    assert_eq!(judged(&[&wrote[..], &lost].concat(), &finals), [], "a lost commit begins anew");
}

#[test]
fn what_is_visible_in_a_region_is_seen_there_until_something_is_disturbed() {
    let wrote = [start(1, A), end(1, "applied", true)];
    let accepted = [start(1, A), end(1, "accepted", true)];
    let none = [read(2, "far", false), saw(2, 0, None)];
    let of = |parts: &[&[Value]]| judged(&parts.concat(), &applied());
    let crash = [fault("crash"), healed("crash")];
    assert_eq!(of(&[&wrote, &none]), [Law::VisibleTooEarly]);
    assert_eq!(of(&[&accepted, &none]), [Law::VisibleTooEarly]);
    assert_eq!(of(&[&crash, &wrote, &none]), [Law::VisibleTooEarly]);
    assert_eq!(of(&[&crash[..1], &wrote, &none]), [Law::VisibleTooEarly], "it was over at once");
    assert_eq!(of(&[&wrote, &crash, &none]), []);
    assert_eq!(of(&[&crash[..1], &wrote, &none, &crash[1..]]), [], "it is not over");
    assert_eq!(of(&[&wrote, &none[..1], &crash[..1], &none[1..]]), [], "during the read");
    assert_eq!(of(&[&wrote, &[read(2, "near", false), saw(2, 0, None)]]), [], "elsewhere");
}

#[test]
fn a_read_with_a_bookmark_shows_what_its_client_has_read() {
    let earlier = [read(1, "far", false), saw(1, 1, Some(A))];
    let later = [read(2, "near", true), saw(2, 0, None)];
    let done = [start(9, A), end(9, "accepted", false)];
    let of = |parts: &[&[Value]]| judged(&[&[&done[..]], parts].concat().concat(), &applied());
    assert_eq!(of(&[&earlier, &later]), [Law::ReadBack]);
    assert_eq!(of(&[&earlier, &[superseded()], &later]), []);
    assert_eq!(of(&[&earlier, &[read(2, "near", false), saw(2, 0, None)]]), []);
    assert_eq!(of(&[&earlier[..1], &later[..1], &earlier[1..], &later[1..]]), [], "side by side");
}

#[test]
fn a_read_of_a_branch_that_was_lost_may_show_what_is_not_there() {
    let lost = [read(1, "far", false), saw(1, 1, Some(A))];
    let failover = [fault("failover"), healed("failover")];
    let of = |parts: &[&[Value]]| judged(&parts.concat(), &[]);
    assert_eq!(of(&[&lost]), [Law::ReadUnknown]);
    assert_eq!(of(&[&failover, &lost]), [Law::ReadUnknown]);
    assert_eq!(of(&[&lost, &failover]), []);
    assert_eq!(of(&[&failover[..1], &lost, &failover[1..]]), []);
    assert_eq!(of(&[&[read(1, "far", false), saw(1, 2, None)]]), [Law::ReadUnknown], "no last");
}

#[test]
fn a_keys_effects_are_numbered_from_one_without_a_gap() {
    let done = [start(1, A), end(1, "accepted", false), start(2, B), end(2, "accepted", false)];
    let of = |a, b| {
        let finals = [outcome(A, "applied"), outcome(B, "applied"), effect(a, A), effect(b, B)];
        broken(&history(&done, &finals))
    };
    assert_eq!(of(1, 2), BTreeSet::new());
    for (a, b) in [(2, 3), (0, 1), (1, 3), (1, 1)] {
        assert_eq!(of(a, b), BTreeSet::from([Law::OrderGap]), "{a}, {b}");
    }
}

/// A failover may lose a first effect and number it anew as the second one. A read of the effect is
/// known by its id. Who was shown nothing was shown too little all the same.
#[test]
fn a_failover_numbers_anew_what_was_read_before_it() {
    let finals = [outcome(B, "applied"), effect(1, B), outcome(A, "applied"), effect(2, A)];
    let done = |saw: Value, failover: bool| {
        let mut done =
            vec![start(3, B), start(1, A), end(1, "applied", false), read(2, "far", true), saw];
        done.extend(
            failover.then(|| [fault("failover"), healed("failover")]).into_iter().flatten(),
        );
        judged(&done, &finals)
    };
    assert_eq!(done(saw(2, 1, Some(A)), true), []);
    assert_eq!(done(saw(2, 0, None), true), [Law::ReadStale]);
    assert_eq!(done(saw(2, 1, Some(B)), true), [Law::ReadStale]);
    assert!(done(saw(2, 1, Some(A)), false).contains(&Law::ReadStale), "nothing was lost");
    assert_eq!(done(saw(2, 2, Some(A)), false), []);
}
