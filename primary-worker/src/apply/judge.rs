//! What becomes of a command that failed alone. Nothing else decides it.
//!
//! ```text
//! failed alone => recorded     rejected, or dead-lettered
//!              => again        its first failure by chance: at once
//!              => parked       by chance again; not known here yet; asked to be tried later
//!              => lane ends    a stale plan: a fresh connection cures it
//! ```

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use farwrite_internal::shortened;
use farwrite_schemas::Rejection;

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
/// How many commands are remembered that a fresh connection was tried for.
const REFRESHED_MAX: usize = 1_024;

/// Commands for which a fresh connection was tried, by sequence: kept across takeovers, since it is
/// a takeover that brings the connection.
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
    /// The connection is given up.
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
        Verdict::Retry => {
            item.attempts += 1;
            match item.attempts {
                attempts if attempts >= config.attempts_max => {
                    dead_letter("attempts_used_up", &rejection)
                }
                1 => return Next::Again,
                attempts => {
                    let wait = Some(retry_pause(config.retry_pause, attempts - 1));
                    CommandWork::Park(Park {
                        reason: ParkReason::Retry,
                        wait,
                        error: Some(rejection),
                    })
                }
            }
        }
        Verdict::Park => {
            let reason =
                if rejection.code == "FW003" { ParkReason::Unknown } else { ParkReason::NotReady };
            not_yet(reason, rejection, lacks_for, config)
        }
        Verdict::Refresh if refreshed.first_time(item.delivery.sequence) => return Next::Refresh,
        Verdict::Refresh => not_yet(ParkReason::NotReady, rejection, lacks_for, config),
        Verdict::Later(wait) => CommandWork::Park(Park {
            reason: ParkReason::Later,
            wait: Some(wait.clamp(LATER_MIN, LATER_MAX)),
            error: Some(rejection),
        }),
        // The last four end an attempt before anybody is judged.
        Verdict::DeadLetter
        | Verdict::Wait
        | Verdict::Blame
        | Verdict::Fenced
        | Verdict::Broken => dead_letter("cannot_apply", &rejection),
    };
    Next::Record
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
    fn a_fresh_connection_is_tried_once_for_a_command() {
        let refreshed = Refreshed::default();
        assert!(refreshed.first_time(7));
        assert!(!refreshed.clone().first_time(7));
        assert!(refreshed.first_time(8));
    }
}
