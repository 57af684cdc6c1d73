//! What is done with each row: where it is published, with which verb, under which id, and whether
//! a second time.
//!
//! All of it follows from the row's index in the file, so that a run can be repeated. The rhythms
//! are chosen so that even a file of one row has a copy of each kind.

use farwrite_producer::{Command, CommandId};

use super::file::{AIRPORTS, FlightRow};
use crate::flights::{Cancelled, Departed};

/// What the app waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DemoVerb {
    /// Accepted.
    Publish,
    /// Committed.
    Submit,
    /// Visible, and read back at once.
    Write,
}

/// Whether the row is published a second time under its id, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Copies {
    /// While the broker still knows the id.
    pub(super) at_once: bool,
    /// When only the ledger knows it.
    pub(super) after_window: bool,
}

/// The plan of one run.
#[derive(Clone, Debug)]
pub(super) struct DemoPlan {
    /// The regions, the primary's first.
    pub(super) regions: Vec<String>,
    /// The region of each airport, as an index of `regions`.
    region_of: [usize; 3],
}

impl DemoPlan {
    /// Gives each airport its region: the one of its name, else the next in turn.
    pub(super) fn new(regions: &[String]) -> Self {
        let region_of = std::array::from_fn(|turn| {
            let own = |region: &String| region.eq_ignore_ascii_case(AIRPORTS[turn]);
            regions.iter().position(own).unwrap_or(turn % regions.len().max(1))
        });
        Self { regions: regions.to_vec(), region_of }
    }

    /// The airports that publish in a region of another name: `(airport, region)`.
    pub(super) fn strangers(&self) -> Vec<(&'static str, &str)> {
        let placed = AIRPORTS.iter().zip(self.region_of);
        placed
            .map(|(airport, region)| (*airport, &*self.regions[region]))
            .filter(|(airport, region)| !region.eq_ignore_ascii_case(airport))
            .collect()
    }

    /// Where a row is published, as an index of `regions`.
    pub(super) fn region(&self, row: &FlightRow) -> usize {
        let airport = AIRPORTS.iter().position(|airport| *airport == row.flight().origin);
        airport.map_or(0, |airport| self.region_of[airport])
    }

    /// One in ten is submitted, one in twenty written; the others are published.
    pub(super) const fn verb(index: usize) -> DemoVerb {
        match index % 20 {
            3 | 13 => DemoVerb::Submit,
            5 => DemoVerb::Write,
            _ => DemoVerb::Publish,
        }
    }

    /// Two in a hundred are published twice: one at once, one after the duplicate window. A file of
    /// one row has both.
    pub(super) const fn copies(index: usize, rows: usize) -> Copies {
        Copies { at_once: index.is_multiple_of(100), after_window: index % 100 == 1 || rows == 1 }
    }

    /// A new id; in every fourth hundred of rows, an id derived from the row's line. An app whose
    /// input may come twice derives its ids so.
    pub(super) fn id(index: usize, file: &str, row: &FlightRow) -> CommandId {
        if (index / 100) % 4 != 3 {
            return CommandId::now();
        }
        let kind = match row {
            FlightRow::Departed(_) => Departed::NAME,
            FlightRow::Cancelled(_) => Cancelled::NAME,
        };
        CommandId::derived(kind, &format!("{file} line {}", row.flight().line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(regions: &[&str]) -> DemoPlan {
        DemoPlan::new(&regions.iter().map(|region| (*region).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn an_airport_publishes_in_the_region_of_its_name_else_in_turn() {
        assert_eq!(plan(&["ewr", "jfk", "lga"]).region_of, [0, 1, 2]);
        assert_eq!(plan(&["lga", "ewr", "jfk"]).region_of, [1, 2, 0]);
        assert_eq!(plan(&["fra", "sin"]).region_of, [0, 1, 0]);
        assert_eq!(plan(&["ewr"]).region_of, [0, 0, 0]);
        assert_eq!(plan(&["ewr"]).strangers(), [("JFK", "ewr"), ("LGA", "ewr")]);
        assert!(plan(&["ewr", "jfk", "lga", "bos"]).strangers().is_empty());
    }

    #[test]
    fn the_verbs_and_copies_come_in_their_shares() {
        let share = |verb| (0..1_000).filter(|index| DemoPlan::verb(*index) == verb).count();
        assert_eq!((share(DemoVerb::Submit), share(DemoVerb::Write)), (100, 50));
        let copies = |rows| {
            let copies = (0..rows).map(|index| DemoPlan::copies(index, rows));
            let (at_once, late): (Vec<_>, Vec<_>) =
                copies.map(|c| (c.at_once, c.after_window)).unzip();
            let count = |flags: Vec<bool>| flags.into_iter().filter(|flag| *flag).count();
            (count(at_once), count(late))
        };
        assert_eq!(copies(1_000), (10, 10));
        assert_eq!(copies(2), (1, 1));
        assert_eq!(copies(1), (1, 1));
    }
}
