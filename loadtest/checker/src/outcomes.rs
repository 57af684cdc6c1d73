//! Outcomes: every accepted command has one, and its caller was told that outcome.

use crate::{
    eras,
    history::{CommandFate, History, HistoryCommand},
    law::{Broken, Findings, Law},
    lines::HistoryOutcome,
};

pub(crate) fn judge(history: &History, findings: &mut Findings) {
    let last_failover = eras::last_failover(history);
    for fate in &history.fates {
        let commands = || fate.commands.iter().map(|index| &history.commands[*index]);
        let broken = |sentence| about(history, fate, sentence);
        let accepted = commands().any(HistoryCommand::is_accepted);
        if accepted || fate.sequence.is_some() {
            let why = if accepted { "was accepted" } else { "is in the stream" };
            findings.judge(Law::OutcomeMissing, !fate.outcomes.is_empty(), || {
                broken(format!("command {} {why} and has no outcome", fate.id))
            });
        }
        if !fate.outcomes.is_empty() {
            findings.judge(Law::OutcomeTwice, fate.outcomes.len() == 1, || {
                let words: Vec<_> = fate.outcomes.iter().map(|outcome| outcome.as_str()).collect();
                broken(format!("command {} has the outcomes {}", fate.id, words.join(", ")))
            });
        }
        if !fate.commands.is_empty() && commands().all(HistoryCommand::is_refused) {
            let is_gone = fate.outcomes.is_empty() && fate.effects.is_empty();
            findings.judge(Law::OutcomeOfRefused, is_gone, || {
                let what = if fate.outcomes.is_empty() { "an effect" } else { "an outcome" };
                broken(format!("command {} was refused and has {what}", fate.id))
            });
        }
        // With several outcomes there is none to compare with.
        let [found] = fate.outcomes[..] else { continue };
        for command in commands() {
            let Some(told) = command.told() else { continue };
            let lost = last_failover.is_some_and(|failover| failover > command.start);
            judge_told(findings, told, found, lost, || {
                let (told, found) = (told.as_str(), found.as_str());
                let op = command.op;
                Broken {
                    ops: vec![op],
                    ..broken(format!(
                        "the caller of operation {op} was told {told} of command {}, and it is {found}",
                        fate.id
                    ))
                }
            });
        }
    }
}

/// A failover may lose the commit of what was told. Then the command is applied again, and may end
/// as applied or as rejected. It must not end as expired or as a dead letter.
fn judge_told(
    findings: &mut Findings,
    told: HistoryOutcome,
    found: HistoryOutcome,
    lost: bool,
    broken: impl Fn() -> Broken,
) {
    let expired_later = found == HistoryOutcome::Expired && told != HistoryOutcome::Expired;
    findings.judge(Law::OutcomeExpiredLater, !expired_later, &broken);
    if !expired_later {
        let again = lost && matches!(found, HistoryOutcome::Applied | HistoryOutcome::Rejected);
        findings.judge(Law::OutcomeChanged, told == found || again, &broken);
    }
}

fn about(history: &History, fate: &CommandFate, sentence: String) -> Broken {
    let commands = || fate.commands.iter().map(|index| &history.commands[*index]);
    let mut keys: Vec<_> = commands().map(|command| command.key).collect();
    keys.dedup();
    Broken {
        sentence,
        ids: vec![fate.id],
        keys: keys.into_iter().map(|key| history.names.text(key).to_owned()).collect(),
        ops: commands().map(|command| command.op).collect(),
    }
}
