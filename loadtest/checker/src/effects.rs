//! Effects: an applied command has one, and nothing else has any.

use crate::{
    history::{CommandFate, Effect, History},
    law::{Broken, Findings, Law},
    lines::HistoryOutcome,
};

pub(crate) fn judge(history: &History, findings: &mut Findings) {
    for fate in &history.fates {
        let is_applied = fate.outcomes.contains(&HistoryOutcome::Applied);
        let broken = |sentence| about(history, fate, sentence);
        if is_applied {
            findings.judge(Law::EffectMissing, !fate.effects.is_empty(), || {
                broken(format!("command {} was applied and has no effect", fate.id))
            });
        }
        if fate.effects.is_empty() {
            continue;
        }
        findings.judge(Law::EffectTwice, fate.effects.len() == 1, || {
            broken(format!("command {} has {} effects", fate.id, fate.effects.len()))
        });
        let is_asked = |effect: &Effect| {
            fate.commands.iter().any(|index| history.commands[*index].key == effect.key)
        };
        let why = if fate.commands.is_empty() {
            Some("nobody sent it")
        } else if !is_applied {
            Some("it was not applied")
        } else if !fate.effects.iter().all(is_asked) {
            Some("nobody sent it with that key")
        } else {
            None
        };
        findings.judge(Law::EffectUnasked, why.is_none(), || {
            let why = why.unwrap_or_default();
            broken(format!("command {} has an effect, and {why}", fate.id))
        });
    }
}

fn about(history: &History, fate: &CommandFate, sentence: String) -> Broken {
    let keys = fate.effects.iter().map(|effect| history.names.text(effect.key).to_owned());
    let ops = fate.commands.iter().map(|index| history.commands[*index].op);
    Broken { sentence, ids: vec![fate.id], keys: keys.collect(), ops: ops.collect() }
}
