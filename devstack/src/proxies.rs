//! The thread that carries a stack's links.

use anyhow::{Context, Result};
use tokio::runtime::{Handle, Runtime};

/// A runtime of one thread for the links. It belongs to the stack and not to the caller's runtime,
/// which a shared stack may outlive.
pub(crate) struct Proxies(Option<Runtime>);

impl Proxies {
    pub(crate) fn start() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("devstack")
            .enable_all()
            .build();
        Ok(Self(Some(runtime.context("starting the proxies' runtime")?)))
    }

    pub(crate) fn handle(&self) -> Result<&Handle> {
        self.0.as_ref().map(Runtime::handle).context("the proxies are stopped")
    }

    /// In the background: a runtime must not be dropped within another.
    pub(crate) fn stop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Proxies {
    fn drop(&mut self) {
        self.stop();
    }
}
