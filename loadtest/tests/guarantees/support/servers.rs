//! The servers that all tests share.

use std::time::Duration;

use anyhow::Result;
use farwrite_devstack::Devstack;
use tokio::sync::OnceCell;

/// How long anything may take that must happen: far more than it takes on a slow machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

static STACK: OnceCell<Devstack> = OnceCell::const_new();

/// The shared servers: a primary in `ewr`, a replica in `jfk`, 30 ms away. The reaper ends them
/// with this process.
pub(crate) async fn stack() -> Result<&'static Devstack> {
    STACK
        .get_or_try_init(|| async {
            let rtt = Duration::from_millis(30);
            Devstack::builder()
                .regions(["ewr", "jfk"])
                .rtt(rtt)
                .setting("max_connections", "400")
                .start()
                .await
        })
        .await
}
