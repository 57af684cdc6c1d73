//! Ways to spoil a good history, for each law its own. A way offers candidates: a spoilt line may
//! break more than one law, so the test looks for a candidate that breaks just the one.

use std::collections::HashSet;

use farwrite_checker::Law;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Lines;

/// Histories that break a law, and perhaps others.
pub(super) fn spoilt(law: Law, good: &Lines) -> Box<dyn Iterator<Item = Lines> + '_> {
    match law {
        Law::OutcomeMissing => Box::new(outcomes(good, "rejected").map(|at| {
            let mut lines = good.clone();
            lines.remove(at);
            lines
        })),
        Law::OutcomeTwice => Box::new(outcomes(good, "applied").map(|at| {
            let mut lines = good.clone();
            lines.insert(at, good[at].clone());
            lines
        })),
        Law::OutcomeChanged => Box::new(ends(good, "rejected").map(|at| {
            let mut lines = good.clone();
            lines[at]["end"] = json!("dead_lettered");
            lines
        })),
        Law::OutcomeExpiredLater => Box::new(outcomes(good, "rejected").map(|at| {
            let mut lines = good.clone();
            lines[at]["outcome"] = json!("expired");
            lines
        })),
        Law::OutcomeOfRefused => Box::new(ends(good, "refused").map(|at| {
            let start = start_of(good, &good[at]);
            with_final(good, json!({"final": "outcome", "id": start["id"], "outcome": "rejected"}))
        })),
        Law::EffectMissing => Box::new(outcomes(good, "rejected").map(|at| {
            let mut lines = good.clone();
            lines[at]["outcome"] = json!("applied");
            lines
        })),
        Law::EffectTwice => Box::new(effects(good).map(|at| {
            let (key, id) = (&good[at]["key"], &good[at]["id"]);
            with_final(good, effect(key, count(good, key) + 1, id))
        })),
        Law::EffectUnasked => Box::new(outcomes(good, "rejected").map(|at| {
            let id = &good[at]["id"];
            let message = good.iter().find(|line| line["final"] == "message" && line["id"] == *id);
            let key = &message.unwrap()["key"];
            with_final(good, effect(key, count(good, key) + 1, id))
        })),
        Law::OrderStream => Box::new(neighbours(good).map(|(a, b)| {
            let mut lines = good.clone();
            let [a, b] = [a, b].map(|at| message_of(good, &good[at]["id"]));
            let sequence = lines[a]["sequence"].take();
            lines[a]["sequence"] = lines[b]["sequence"].take();
            lines[b]["sequence"] = sequence;
            lines
        })),
        Law::OrderAcknowledged | Law::OrderDropped => {
            Box::new(neighbours(good).map(|(a, b)| exchanged(good, a, b)))
        }
        Law::OrderGap => Box::new(effects(good).map(|at| {
            let mut lines = good.clone();
            lines[at]["n"] = json!(count(good, &good[at]["key"]) + 1);
            lines
        })),
        Law::ReadStale | Law::VisibleTooEarly | Law::ReadBack => Box::new(lowered(good)),
        Law::ReadUnknown => Box::new(ends(good, "read").map(|at| {
            let mut lines = good.clone();
            lines[at]["last"] = json!(Uuid::from_u128(1));
            lines
        })),
    }
}

fn places<'a>(good: &'a Lines, kind: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    good.iter().enumerate().filter(move |(_, line)| line[kind] == word).map(|(at, _)| at)
}

fn outcomes<'a>(good: &'a Lines, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    places(good, "outcome", word)
}

fn ends<'a>(good: &'a Lines, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    places(good, "end", word)
}

fn effects(good: &Lines) -> impl Iterator<Item = usize> {
    places(good, "final", "effect")
}

fn start_of<'a>(good: &'a Lines, end: &Value) -> &'a Value {
    good.iter().find(|line| line["op"] == end["op"] && line.get("start").is_some()).unwrap()
}

fn message_of(good: &Lines, id: &Value) -> usize {
    places(good, "final", "message").find(|at| good[*at]["id"] == *id).unwrap()
}

fn count(good: &Lines, key: &Value) -> usize {
    effects(good).filter(|at| good[*at]["key"] == *key).count()
}

fn effect(key: &Value, n: usize, id: &Value) -> Value {
    json!({"final": "effect", "key": key, "n": n, "id": id})
}

fn with_final(good: &Lines, line: Value) -> Lines {
    let mut lines = good.clone();
    lines.insert(good.len() - 1, line);
    lines
}

/// Effects that follow each other in a key, of commands that the stream holds once.
fn neighbours(good: &Lines) -> impl Iterator<Item = (usize, usize)> {
    let mut seen = HashSet::new();
    let ids = places(good, "final", "message").map(|at| good[at]["id"].to_string());
    let twice: HashSet<String> = ids.filter(|id| !seen.insert(id.clone())).collect();
    let pairs = effects(good).flat_map(move |a| {
        let next = good[a]["n"].as_u64().unwrap() + 1;
        let is_next = move |b: &usize| good[*b]["key"] == good[a]["key"] && good[*b]["n"] == next;
        effects(good).filter(is_next).map(move |b| (a, b))
    });
    pairs.filter(move |(a, b)| {
        [a, b].iter().all(|at| !twice.contains(&good[**at]["id"].to_string()))
    })
}

/// Two commands exchanged in the end state and in reads, so that only earlier acknowledgements tell
/// them apart.
fn exchanged(good: &Lines, a: usize, b: usize) -> Lines {
    let [a, b] = [a, b].map(|at| good[at]["id"].clone());
    let exchange = |id: &mut Value| {
        if *id == a {
            *id = b.clone();
        } else if *id == b {
            *id = a.clone();
        }
    };
    let mut lines = good.clone();
    for line in &mut lines {
        if line["final"] == "effect" || line["final"] == "message" {
            exchange(&mut line["id"]);
        } else if line["end"] == "read" {
            exchange(&mut line["last"]);
        }
    }
    lines
}

/// Each read in turn shows one effect less than it did, or none.
fn lowered(good: &Lines) -> impl Iterator<Item = Lines> {
    ends(good, "read").flat_map(move |at| {
        let n = good[at]["n"].as_u64().unwrap();
        let key = &start_of(good, &good[at])["key"];
        let to = [n.checked_sub(1), (n > 1).then_some(0)];
        to.into_iter().flatten().map(move |n| {
            let mut lines = good.clone();
            let last = effects(good).find(|at| good[*at]["key"] == *key && good[*at]["n"] == n);
            lines[at]["n"] = json!(n);
            lines[at]["last"] = last.map_or(Value::Null, |last| good[last]["id"].clone());
            lines
        })
    })
}
