//! Whether answers may leave: a flag that the veto sets, and everything that answers reads.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tracing::{error, info};

/// Whether answers may leave: not while it cannot be told who serves.
#[derive(Clone, Debug)]
pub(crate) struct MayAnswer(Arc<AtomicBool>);

impl Default for MayAnswer {
    fn default() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }
}

impl MayAnswer {
    pub(crate) fn now(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, may: bool) {
        if self.0.swap(may, Ordering::Relaxed) == may {
            return;
        }
        if may {
            info!("it can be told again who serves: answers leave");
        } else {
            error!("it cannot be told who serves: nobody is answered, and nothing is trimmed");
        }
    }
}
