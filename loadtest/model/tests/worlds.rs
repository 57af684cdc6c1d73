//! The small worlds keep every law, and each defect that is put back breaks the law that it broke.

use farwrite_model::{
    check::walk,
    protocol::Protocol,
    world::{Defect, SMALL},
};

#[test]
fn no_small_world_breaks_a_law() {
    for world in SMALL {
        let walk = walk(Protocol { world, defect: None });
        assert!(walk.broken.is_none(), "{}: {walk}", world.name);
        assert!(walk.goes_somewhere, "{}: no command can end", world.name);
    }
}

#[test]
fn each_defect_that_is_put_back_is_found_by_the_law_that_it_breaks() {
    for (defect, law) in [
        (Defect::BatchAsksTwice, "3: one id"),
        (Defect::NoHorizon, "3: one id"),
        (Defect::WaitingUnseen, "3: a command that waits"),
        (Defect::NoProof, "5:"),
        (Defect::DropFreesKey, "4:"),
        (Defect::NoIdentity, "7:"),
        (Defect::TrimsAhead, "8:"),
        (Defect::NoBranch, "7:"),
        (Defect::NoLedger, "3: one id"),
    ] {
        let walk = walk(Protocol { world: defect.world(), defect: Some(defect) });
        let broken = walk.broken.as_ref().map(|(broken, _)| *broken).unwrap_or("none");
        assert!(broken.starts_with(law), "{}: {walk}", defect.name());
    }
}
