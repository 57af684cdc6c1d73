//! What of one key is sent again: in the order in which it was sent, up to the first command that is
//! in doubt.
//!
//! Whatever may still turn out to be lost holds back what is behind it, until a later run: sent
//! now, its successor would overtake it. A command without a key stands alone.

use std::{collections::HashMap, sync::Arc};

use farwrite_schemas::{CommandId, Key};

use super::{judge::EntryStanding, options::Overtaken};
use crate::{journal::Listed, outbox::message::Message};

/// An entry and what it is.
#[derive(Clone, Debug)]
pub(super) struct JudgedEntry {
    pub(super) listed: Listed,
    pub(super) standing: EntryStanding,
}

/// What is to be done with the lost commands of one key.
#[derive(Debug, Default)]
pub(super) struct KeyPlan {
    /// To be sent again, in this order.
    pub(super) send: Vec<Arc<Message>>,
    /// Those that a later one has overtaken, or may have, sent or not.
    pub(super) overtaken: Vec<CommandId>,
    /// How many of those are not sent.
    pub(super) left: usize,
    /// Those that wait for one before them.
    pub(super) held_back: usize,
}

/// Puts the commands of each key together, in their order; those without a key alone.
pub(super) fn by_key(items: Vec<JudgedEntry>) -> Vec<Vec<JudgedEntry>> {
    let mut groups: Vec<Vec<JudgedEntry>> = Vec::new();
    let mut places: HashMap<Key, usize> = HashMap::new();
    for item in items {
        let place = match &item.listed.message.key {
            Some(key) => *places.entry(key.clone()).or_insert(groups.len()),
            None => groups.len(),
        };
        match groups.get_mut(place) {
            Some(group) => group.push(item),
            None => groups.push(vec![item]),
        }
    }
    groups.retain(|group| group.iter().any(|item| item.standing == EntryStanding::Lost));
    groups
}

/// Plans one key.
pub(super) fn plan(items: &[JudgedEntry], policy: Overtaken) -> KeyPlan {
    let mut plan = KeyPlan::default();
    let mut is_in_doubt = false;
    let last = |is_so: fn(&JudgedEntry) -> bool| items.iter().rposition(is_so);
    let (last_kept, last_in_doubt) = (last(is_kept), last(may_be_kept));
    let is_before = |place, last: Option<usize>| last.is_some_and(|last| last > place);
    for (place, JudgedEntry { listed, standing }) in items.iter().enumerate() {
        match standing {
            EntryStanding::Ended(_) | EntryStanding::Parked | EntryStanding::TooOld => {}
            EntryStanding::UnderWay
            | EntryStanding::Young
            | EntryStanding::OnItsWay
            | EntryStanding::Unknown => {
                is_in_doubt = true;
            }
            EntryStanding::Lost if is_in_doubt => plan.held_back += 1,
            EntryStanding::Lost => {
                let is_overtaken = listed.overtaken || is_before(place, last_kept);
                let may_be_overtaken = is_before(place, last_in_doubt);
                match policy {
                    Overtaken::Leave if is_overtaken => plan.left += 1,
                    Overtaken::Leave if may_be_overtaken => {
                        is_in_doubt = true;
                        plan.held_back += 1;
                        continue;
                    }
                    // At once: the longer it waits, the more overtake it.
                    Overtaken::Leave | Overtaken::SendAgain => {
                        plan.send.push(Arc::clone(&listed.message));
                    }
                }
                if is_overtaken || may_be_overtaken {
                    plan.overtaken.push(listed.message.id);
                }
            }
        }
    }
    plan
}

/// Whether a command was not lost.
const fn is_kept(item: &JudgedEntry) -> bool {
    matches!(item.standing, EntryStanding::Ended(_) | EntryStanding::Parked)
}

/// Whether it is not known whether a command was lost that the stream acknowledged.
const fn may_be_kept(item: &JudgedEntry) -> bool {
    match item.standing {
        EntryStanding::UnderWay
        | EntryStanding::Young
        | EntryStanding::OnItsWay
        | EntryStanding::Unknown => item.listed.is_stored,
        EntryStanding::Ended(_)
        | EntryStanding::Parked
        | EntryStanding::TooOld
        | EntryStanding::Lost => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{outbox::message::tests::message, reconcile::judge::EndedAs};

    const ENDED: EntryStanding = EntryStanding::Ended(EndedAs::Applied);

    fn items(key: Option<&str>, standings: &[EntryStanding]) -> Vec<JudgedEntry> {
        let item = |standing: &EntryStanding| JudgedEntry {
            listed: Listed {
                message: message(key, "{}"),
                sent_at_ms: 0,
                tried_at_ms: 0,
                is_under_way: *standing == EntryStanding::UnderWay,
                is_stored: true,
                overtaken: false,
            },
            standing: *standing,
        };
        standings.iter().map(item).collect()
    }

    /// Which places are sent and which are overtaken, and how many are held back.
    fn planned(items: &[JudgedEntry], policy: Overtaken) -> (Vec<usize>, Vec<usize>, usize) {
        let place = |id| items.iter().position(|item| item.listed.message.id == id).unwrap();
        let KeyPlan { send, overtaken, held_back, .. } = plan(items, policy);
        let sent = send.iter().map(|message| place(message.id)).collect();
        (sent, overtaken.into_iter().map(place).collect(), held_back)
    }

    #[test]
    fn the_lost_ones_are_sent_in_order_up_to_the_first_that_is_in_doubt() {
        use EntryStanding::{Lost, OnItsWay, Parked, TooOld, UnderWay, Unknown, Young};
        for (standings, sent, held_back) in [
            (&[Lost, Lost, Lost][..], &[0, 1, 2][..], 0),
            (&[ENDED, Parked, TooOld, Lost, Lost], &[3, 4], 0),
            (&[Lost, Unknown, Lost, Lost], &[0], 2),
            (&[Lost, OnItsWay, Lost], &[0], 1),
            (&[Young, Lost], &[], 1),
            (&[Lost, UnderWay], &[0], 0),
            (&[ENDED, ENDED], &[], 0),
        ] {
            let items = items(Some("k"), standings);
            let (was_sent, _, was_held_back) = planned(&items, Overtaken::SendAgain);
            assert_eq!((&was_sent[..], was_held_back), (sent, held_back), "{standings:?}");
        }
    }

    #[test]
    fn what_a_later_one_may_have_passed_is_named_and_sent_only_where_that_is_wanted() {
        use EntryStanding::{Lost, Parked, TooOld, Young};
        for (standings, overtaken, sent_where_left) in [
            (&[Lost, Lost, ENDED, Lost][..], &[0, 1][..], &[3][..]),
            (&[Lost, Parked], &[0], &[]),
            (&[Lost, TooOld], &[], &[0]),
            (&[ENDED, Lost], &[], &[1]),
        ] {
            let mut items = items(Some("k"), standings);
            let lost = (0..items.len()).filter(|place| standings[*place] == Lost);
            let (sent, named, _) = planned(&items, Overtaken::SendAgain);
            assert_eq!((sent, &named[..]), (lost.collect(), overtaken), "{standings:?}");
            let expected = (sent_where_left.to_vec(), overtaken.to_vec(), 0);
            assert_eq!(planned(&items, Overtaken::Leave), expected, "{standings:?}");
            // By one whose outcome was heard before.
            for item in &mut items {
                item.listed.overtaken = true;
            }
            assert!(planned(&items, Overtaken::Leave).0.is_empty());
        }
        // It is not known whether the last one is lost.
        let mut items = items(Some("k"), &[Lost, Lost, Young]);
        assert_eq!(planned(&items, Overtaken::SendAgain), (vec![0, 1], vec![0, 1], 0));
        assert_eq!(planned(&items, Overtaken::Leave), (vec![], vec![], 2));
        // Not acknowledged, it may never come.
        items[2].listed.is_stored = false;
        assert_eq!(planned(&items, Overtaken::Leave), (vec![0, 1], vec![], 0));
    }

    #[test]
    fn keys_are_planned_apart_and_who_has_none_alone() {
        use EntryStanding::{Lost, Young};
        let mut all = items(Some("a"), &[Lost]);
        all.extend(items(None, &[Lost, Young, Lost]));
        all.extend(items(Some("b"), &[ENDED]));
        all.extend(items(Some("a"), &[Young]));
        let sizes: Vec<usize> = by_key(all).iter().map(Vec::len).collect();
        assert_eq!(sizes, [2, 1, 1]);
    }
}
