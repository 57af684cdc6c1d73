//! What of one key is sent again: in the order in which it was sent, up to the first command that is
//! in doubt.
//!
//! Whatever may still turn out to be lost holds back what is behind it, until a later run: sent
//! now, its successor would overtake it. A command without a key stands alone.

use std::{collections::HashMap, sync::Arc};

use farwrite_schemas::{CommandId, Key};

use super::{Overtaken, Standing};
use crate::{journal::Listed, message::Message};

/// An entry and what it is.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) listed: Listed,
    pub(super) standing: Standing,
}

/// What is to be done with the lost commands of one key.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// To be sent again, in this order.
    pub(super) send: Vec<Arc<Message>>,
    /// Those that a later one has overtaken, sent or not.
    pub(super) overtaken: Vec<CommandId>,
    /// How many of those are not sent.
    pub(super) left: usize,
    /// Those that wait for one before them.
    pub(super) held_back: usize,
}

/// Puts the commands of each key together, in their order; those without a key alone.
pub(super) fn by_key(items: Vec<Item>) -> Vec<Vec<Item>> {
    let mut groups: Vec<Vec<Item>> = Vec::new();
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
    groups.retain(|group| group.iter().any(|item| item.standing == Standing::Lost));
    groups
}

/// Plans one key.
pub(super) fn plan(items: &[Item], policy: Overtaken) -> Plan {
    let mut plan = Plan::default();
    let mut is_in_doubt = false;
    // The last one that was not lost, as far as is known.
    let last_kept = items.iter().rposition(may_be_kept);
    for (place, Item { listed, standing }) in items.iter().enumerate() {
        match standing {
            Standing::Ended(_) | Standing::Parked | Standing::TooOld => {}
            Standing::UnderWay | Standing::Young | Standing::OnItsWay | Standing::Unknown => {
                is_in_doubt = true;
            }
            Standing::Lost if is_in_doubt => plan.held_back += 1,
            Standing::Lost => {
                let is_overtaken = listed.overtaken || last_kept.is_some_and(|last| last > place);
                if is_overtaken {
                    plan.overtaken.push(listed.message.id);
                }
                if is_overtaken && policy == Overtaken::Leave {
                    plan.left += 1;
                } else {
                    plan.send.push(Arc::clone(&listed.message));
                }
            }
        }
    }
    plan
}

/// Whether a command was applied, or may yet be without being sent again.
const fn may_be_kept(item: &Item) -> bool {
    match item.standing {
        Standing::Ended(_) | Standing::Parked => true,
        Standing::UnderWay | Standing::Young | Standing::OnItsWay | Standing::Unknown => {
            item.listed.is_stored
        }
        Standing::TooOld | Standing::Lost => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{message::tests::message, reconcile::judge::Ending};

    const ENDED: Standing = Standing::Ended(Ending::Applied);

    fn items(key: Option<&str>, standings: &[Standing]) -> Vec<Item> {
        let item = |standing: &Standing| Item {
            listed: Listed {
                message: message(key, "{}"),
                sent_at_ms: 0,
                tried_at_ms: 0,
                is_under_way: *standing == Standing::UnderWay,
                is_stored: true,
                overtaken: false,
            },
            standing: *standing,
        };
        standings.iter().map(item).collect()
    }

    /// Which places are sent and which are overtaken, and how many are held back.
    fn planned(items: &[Item], policy: Overtaken) -> (Vec<usize>, Vec<usize>, usize) {
        let place = |id| items.iter().position(|item| item.listed.message.id == id).unwrap();
        let Plan { send, overtaken, held_back, .. } = plan(items, policy);
        let sent = send.iter().map(|message| place(message.id)).collect();
        (sent, overtaken.into_iter().map(place).collect(), held_back)
    }

    #[test]
    fn the_lost_ones_are_sent_in_order_up_to_the_first_that_is_in_doubt() {
        use Standing::{Lost, OnItsWay, Parked, TooOld, UnderWay, Unknown, Young};
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
        use Standing::{Lost, Parked, TooOld, Young};
        for (standings, overtaken) in [
            (&[Lost, Lost, ENDED, Lost][..], &[0, 1][..]),
            (&[Lost, Parked], &[0]),
            (&[Lost, Young], &[0]),
            (&[Lost, TooOld], &[]),
            (&[ENDED, Lost], &[]),
        ] {
            let mut items = items(Some("k"), standings);
            let (sent, named, _) = planned(&items, Overtaken::SendAgain);
            assert_eq!(named, overtaken, "{standings:?}");
            let (kept, named, _) = planned(&items, Overtaken::Leave);
            assert_eq!(named, overtaken, "{standings:?}");
            let left = sent.into_iter().filter(|place| !overtaken.contains(place));
            assert_eq!(kept, left.collect::<Vec<_>>(), "{standings:?}");
            // By one whose outcome was heard before.
            for item in &mut items {
                item.listed.overtaken = true;
            }
            assert!(planned(&items, Overtaken::Leave).0.is_empty());
        }
        // Not acknowledged, the later one may never come.
        let mut items = items(Some("k"), &[Lost, Young]);
        items[1].listed.is_stored = false;
        assert!(planned(&items, Overtaken::Leave).1.is_empty());
    }

    #[test]
    fn keys_are_planned_apart_and_who_has_none_alone() {
        use Standing::{Lost, Young};
        let mut all = items(Some("a"), &[Lost]);
        all.extend(items(None, &[Lost, Young, Lost]));
        all.extend(items(Some("b"), &[ENDED]));
        all.extend(items(Some("a"), &[Young]));
        let sizes: Vec<usize> = by_key(all).iter().map(Vec::len).collect();
        assert_eq!(sizes, [2, 1, 1]);
    }
}
