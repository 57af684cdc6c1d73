//! What becomes of a command that failed alone. Nothing else decides it.
//!
//! ```text
//! failed alone => recorded     rejected, or dead-lettered
//!              => again        its first failure by chance: at once
//!              => parked       by chance again; not known here yet; asked to be tried later
//!              => again        a plan may be stale: once more, in a new session
//! ```

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use farwrite_internal::shortened;
use farwrite_schemas::{DeadLetter, Rejection};

use crate::{config::Config, verdict::Verdict};

use super::{
    failure::FailedCommand,
    item::BatchItem,
    members::Refused,
    resolve::not_yet,
    work::{CommandWork, Park, ParkReason},
};

/// Longest pause between two attempts of a parked command.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(300);
/// Shortest time that a command is left alone for when it asks: one that asks for none would keep
/// its lane busy with itself.
const LATER_MIN: Duration = Duration::from_millis(10);
/// Longest time that a command may ask to be left alone for.
const LATER_MAX: Duration = Duration::from_secs(366 * 86_400);
/// How often a command may run alone and use the primary's memory up: each time others may lack it.
const OVERDRAWN_MAX: u32 = 3;
/// The class of internal errors: a stale plan is one of many reasons.
const INTERNAL: &str = "XX";
/// How many commands are remembered that were tried again in a new session.
const REFRESHED_MAX: usize = 1_024;

/// Commands that were tried again in a new session, by sequence: once is enough.
#[derive(Clone, Default)]
pub(crate) struct Refreshed(Arc<Mutex<HashSet<u64>>>);

impl Refreshed {
    /// Whether this is the first time.
    fn first_time(&self, sequence: u64) -> bool {
        let mut sequences = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sequences.len() >= REFRESHED_MAX {
            sequences.clear();
        }
        sequences.insert(sequence)
    }
}

/// What is done next with a command that failed alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// It is tried again at once.
    Again,
    /// What was decided is recorded: the item says what.
    Record,
    /// The lane gets a new session, and it is tried again at once.
    Refresh,
}

/// Decides, and writes into the item what is to be recorded.
pub(crate) fn judge(
    item: &mut BatchItem,
    failed: FailedCommand,
    config: &Config,
    refreshed: &Refreshed,
) -> Next {
    let FailedCommand { verdict, rejection, member } = failed;
    let lacks_for = item.parked.as_ref().map_or(Duration::ZERO, |parked| parked.lacks_for);
    item.work = match verdict {
        Verdict::Reject => match (&item.work, member) {
            (CommandWork::Atomic { atomic, .. }, Some(member)) => {
                let refused = Some(Refused { member, rejection });
                CommandWork::Atomic { atomic: Arc::clone(atomic), refused }
            }
            _ => CommandWork::Reject(rejection),
        },
        Verdict::Again => return Next::Again,
        Verdict::Retry => match chance(item, rejection, config.attempts_max, config) {
            Some(work) => work,
            None => return Next::Again,
        },
        Verdict::Overdraw => match chance(item, rejection, OVERDRAWN_MAX, config) {
            Some(CommandWork::DeadLetter { letter, in_ledger }) => {
                let letter = DeadLetter { reason: "took_the_primary_down".to_owned(), ..letter };
                CommandWork::DeadLetter { letter, in_ledger }
            }
            Some(work) => work,
            None => return Next::Again,
        },
        Verdict::Park => {
            let reason =
                if rejection.code == "FW003" { ParkReason::Unknown } else { ParkReason::NotReady };
            not_yet(reason, rejection, lacks_for, config)
        }
        Verdict::Refresh if refreshed.first_time(item.delivery.sequence) => return Next::Refresh,
        Verdict::Refresh if rejection.code.starts_with(INTERNAL) => {
            match chance(item, rejection, config.attempts_max, config) {
                Some(work) => work,
                None => return Next::Again,
            }
        }
        Verdict::Refresh => not_yet(ParkReason::NotReady, rejection, lacks_for, config),
        Verdict::Later(wait) => CommandWork::Park(Park {
            reason: ParkReason::Later,
            wait: Some(wait.clamp(LATER_MIN, LATER_MAX)),
            error: Some(rejection),
        }),
        // The last five end an attempt before anybody is judged.
        Verdict::DeadLetter
        | Verdict::Wait
        | Verdict::Blame
        | Verdict::Ended
        | Verdict::Fenced
        | Verdict::Broken => dead_letter("cannot_apply", &rejection),
    };
    Next::Record
}

/// One more attempt failed by chance: what becomes of the command, or `None` where it is tried again at
/// once.
fn chance(
    item: &mut BatchItem,
    rejection: Rejection,
    attempts_max: u32,
    config: &Config,
) -> Option<CommandWork> {
    item.attempts += 1;
    match item.attempts {
        attempts if attempts >= attempts_max => Some(dead_letter("attempts_used_up", &rejection)),
        1 => None,
        attempts => {
            let wait = Some(retry_pause(config.retry_pause, attempts - 1));
            let reason = ParkReason::Retry;
            Some(CommandWork::Park(Park { reason, wait, error: Some(rejection) }))
        }
    }
}

fn dead_letter(reason: &str, rejection: &Rejection) -> CommandWork {
    CommandWork::dead_letter(reason, format!("{} ({})", rejection.message, rejection.code), true)
}

/// The pause after so many attempts: doubled each time, up to a bound, and shortened by up to a
/// fifth at random, so that what failed together does not come back together.
fn retry_pause(first: Duration, attempts: u32) -> Duration {
    let doubled = first.saturating_mul(2_u32.saturating_pow(attempts.saturating_sub(1)));
    shortened(doubled.min(RETRY_PAUSE_MAX), 0.2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_their_bound_and_are_shortened_by_a_fifth_at_most() {
        let first = Duration::from_secs(1);
        for (attempts, longest) in [(1, 1), (2, 2), (5, 16), (9, 256), (10, 300), (40, 300)] {
            let longest = Duration::from_secs(longest);
            let pause = retry_pause(first, attempts);
            assert!(longest.mul_f64(0.79) <= pause && pause <= longest, "{attempts}: {pause:?}");
        }
    }

    #[test]
    fn a_command_is_tried_once_in_a_new_session() {
        let refreshed = Refreshed::default();
        assert!(refreshed.first_time(7));
        assert!(!refreshed.clone().first_time(7));
        assert!(refreshed.first_time(8));
    }
}
