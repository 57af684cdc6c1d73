//! `farwrite-model`: walks through every world, and then shows that each defect is found.

use std::process::ExitCode;

use farwrite_model::{
    check::walk,
    protocol::Protocol,
    world::{Defect, LARGE, SMALL},
};

fn main() -> ExitCode {
    let mut is_as_expected = true;
    for (size, worlds) in [("small", SMALL), ("large", LARGE)] {
        for world in worlds {
            let walk = walk(Protocol { world, defect: None });
            println!("{} ({size}): {walk}", world.name);
            is_as_expected &= walk.broken.is_none() && walk.goes_somewhere;
        }
    }
    for defect in Defect::ALL {
        let world = defect.world();
        let walk = walk(Protocol { world, defect: Some(defect) });
        println!("\n{} in {}: {walk}", defect.name(), world.name);
        is_as_expected &= walk.broken.is_some();
    }
    if is_as_expected { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
