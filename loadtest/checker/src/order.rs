//! Order, key by key: effects are numbered without a gap, follow the stream, and follow what was
//! accepted before.

use crate::{
    floors::{FloorMark, floors},
    history::{CommandFate, History},
    law::{Broken, Findings, Law},
    names::Name,
};

/// The key of an effect, its number there, and the index of its fate.
type EffectPosition = (Name, u64, usize);

pub(crate) fn judge(history: &History, findings: &mut Findings) {
    let mut effects: Vec<EffectPosition> = Vec::new();
    for (index, fate) in history.fates.iter().enumerate() {
        effects.extend(fate.effects.iter().map(|effect| (effect.key, effect.n, index)));
    }
    effects.sort_unstable();
    for effects in effects.chunk_by(|(a, ..), (b, ..)| a == b) {
        judge_numbers(history, findings, effects);
        judge_stream(history, findings, effects);
    }
    judge_acknowledged(history, findings);
    judge_dropped(history, findings);
}

/// One finding a key: after a gap every number is wrong.
fn judge_numbers(history: &History, findings: &mut Findings, effects: &[EffectPosition]) {
    let Some((key, ..)) = effects.first() else { return };
    let key = history.names.text(*key);
    let wrong = effects.iter().zip(1..).find(|((_, n, _), expected)| n != expected);
    findings.judge(Law::OrderGap, wrong.is_none(), || {
        let ids = wrong.map(|((.., fate), _)| history.fates[*fate].id);
        let (n, expected) = wrong.map_or((0, 0), |((_, n, _), expected)| (*n, expected));
        Broken {
            sentence: format!("key {key}: effect {n} stands where {expected} is expected"),
            ids: ids.into_iter().collect(),
            keys: vec![key.to_owned()],
            ops: Vec::new(),
        }
    });
}

/// A command that the copy of the stream does not hold has no sequence to compare.
fn judge_stream(history: &History, findings: &mut Findings, effects: &[EffectPosition]) {
    let mut last: Option<(u64, &CommandFate)> = None;
    for (key, n, index) in effects {
        let fate = &history.fates[*index];
        let Some(sequence) = fate.sequence.filter(|_| fate.number(*key) == Some(*n)) else {
            continue;
        };
        let Some((highest, before)) = last.replace((sequence, fate)) else { continue };
        findings.judge(Law::OrderStream, highest <= sequence, || {
            let key = history.names.text(*key);
            let sentence = format!(
                "key {key}: command {} (sequence {sequence}) took effect after {} (sequence {highest})",
                fate.id, before.id
            );
            let (ids, keys) = (vec![before.id, fate.id], vec![key.to_owned()]);
            Broken { sentence, ids, keys, ops: Vec::new() }
        });
        if highest > sequence {
            last = Some((highest, before));
        }
    }
}

/// A command that was sent several times entered the stream between its first start and its first
/// acceptance.
fn judge_acknowledged(history: &History, findings: &mut Findings) {
    let (mut accepted, mut started) = (Vec::new(), Vec::new());
    for (whose, fate) in history.fates.iter().enumerate() {
        let commands = || fate.commands.iter().map(|index| &history.commands[*index]);
        let Some(first) = commands().min_by_key(|command| command.start) else { continue };
        let group = first.key;
        let Some(n) = fate.number(group) else { continue };
        started.push(FloorMark { group, at: first.start, n, whose });
        let ends = commands().filter(|command| command.is_accepted()).filter_map(|told| told.end);
        accepted.extend(ends.map(|told| told.at).min().map(|at| FloorMark { group, at, n, whose }));
    }
    for (later, earlier) in floors(accepted, started) {
        findings.judge(Law::OrderAcknowledged, later.n >= earlier.n, || {
            let key = history.names.text(later.group);
            let [before, after] = [earlier, later].map(|mark| &history.fates[mark.whose]);
            let sentence = format!(
                "key {key}: command {} was accepted before {} was sent, and took effect after it ({} and {})",
                before.id, after.id, earlier.n, later.n
            );
            let ops = before.commands.iter().chain(&after.commands);
            let ops = ops.map(|index| history.commands[*index].op).collect();
            Broken { sentence, ids: vec![before.id, after.id], keys: vec![key.to_owned()], ops }
        });
    }
}

/// A call that was dropped while its message was out holds its key in its region's app until the
/// message is stored, or known not to be. Commands that several regions sent say nothing.
fn judge_dropped(history: &History, findings: &mut Findings) {
    let (mut dropped, mut started) = (Vec::new(), Vec::new());
    for (whose, fate) in history.fates.iter().enumerate() {
        let commands = || fate.commands.iter().map(|index| &history.commands[*index]);
        let Some(first) = commands().min_by_key(|command| command.start) else { continue };
        if commands().any(|command| command.region != first.region) {
            continue;
        }
        let Some(n) = fate.number(first.key) else { continue };
        let group = (first.key, first.region);
        started.push(FloorMark { group, at: first.start, n, whose });
        let ends = commands().filter(|command| command.is_dropped()).filter_map(|told| told.end);
        dropped.extend(ends.map(|told| FloorMark { group, at: told.at, n, whose }));
    }
    for (later, earlier) in floors(dropped, started) {
        // A command that is sent again after its own call was dropped is no other command.
        findings.judge(Law::OrderDropped, later.n >= earlier.n, || {
            let key = history.names.text(later.group.0);
            let [before, after] = [earlier, later].map(|mark| &history.fates[mark.whose]);
            let sentence = format!(
                "key {key}: the call of command {} was dropped before {} was sent, and it took effect after it ({} and {})",
                before.id, after.id, earlier.n, later.n
            );
            Broken { sentence, ids: vec![before.id, after.id], keys: vec![key.to_owned()], ops: Vec::new() }
        });
    }
}
