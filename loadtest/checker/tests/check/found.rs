//! Good histories pass, and each law finds what breaks it.

use std::collections::{BTreeMap, BTreeSet};

use farwrite_checker::Law;

use super::{broken, model::good, report, spoil::spoilt};

#[test]
fn what_is_good_passes_and_is_judged_by_every_law() {
    let mut judged: BTreeMap<Law, u64> = BTreeMap::new();
    for seed in 0..150 {
        for faults in [false, true] {
            let report = report(&good(seed, 600, faults));
            assert!(report.is_well(), "seed {seed}, faults {faults}: {report}");
            for law in report.judged {
                *judged.entry(law.law).or_default() += law.times;
            }
        }
    }
    assert!(Law::ALL.iter().all(|law| judged[law] > 100), "{judged:?}");
}

#[test]
fn disturbed_histories_have_what_the_excuses_are_for() {
    let reports: Vec<_> = (0..50).map(|seed| report(&good(seed, 600, true))).collect();
    let failovers = reports.iter().filter_map(|report| report.counts.faults.get("failover"));
    let superseded: u64 = reports.iter().map(|report| report.counts.superseded).sum();
    assert!(failovers.sum::<u64>() > 20);
    assert!(superseded > 20);
}

/// A history that breaks one law alone is found by that law alone.
#[test]
fn each_law_finds_what_breaks_it_and_nothing_else() {
    for law in Law::ALL {
        let found = (0..20).any(|seed| {
            let good = good(seed, 600, false);
            spoilt(law, &good).any(|lines| broken(&lines) == BTreeSet::from([law]))
        });
        assert!(found, "nothing breaks {} alone", law.as_str());
    }
}

#[test]
fn what_is_spoilt_in_the_end_state_never_passes() {
    let always = [
        Law::OutcomeMissing,
        Law::OutcomeTwice,
        Law::OutcomeChanged,
        Law::EffectMissing,
        Law::EffectTwice,
        Law::EffectUnasked,
        Law::OrderStream,
        Law::OrderGap,
        Law::ReadUnknown,
    ];
    for seed in 0..3 {
        let good = good(seed, 300, false);
        for law in always {
            for (index, lines) in spoilt(law, &good).enumerate() {
                let broken = broken(&lines);
                assert!(broken.contains(&law), "seed {seed}, {} {index}: {broken:?}", law.as_str());
            }
        }
    }
}

#[test]
fn a_report_names_what_it_is_about() {
    let good = good(1, 600, false);
    let lines = spoilt(Law::EffectTwice, &good).next().unwrap();
    let report = report(&lines);
    let [violation] = &report.violations[..] else { panic!("{report}") };
    let json = serde_json::to_value(violation).unwrap();
    let extra = &lines[lines.len() - 2];
    assert_eq!(json["law"], "effect_twice");
    assert_eq!(json["ids"][0], extra["id"]);
    assert_eq!(json["keys"][0], extra["key"]);
    assert!(json["ops"][0].is_u64(), "{json}");
    assert_eq!(report.verdict(), "check: FAIL (1 violation)");
    let text = report.to_string();
    assert!(text.contains(&format!("\n{violation}\n")), "{text}");
    assert!(text.ends_with("check: FAIL (1 violation)\n"), "{text}");
}
