//! The programs of this workspace, and where they may listen.

use std::{
    net::{SocketAddr, TcpListener},
    path::PathBuf,
};

use anyhow::{Context, Result, ensure};

/// A program of this workspace, which was built beside this one.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    let this = std::env::current_exe().context("where this program is")?;
    let program = this.with_file_name(name);
    ensure!(
        program.is_file(),
        "{} is not there: run `cargo build --workspace --bins{}` first",
        program.display(),
        if cfg!(debug_assertions) { "" } else { " --release" }
    );
    Ok(program)
}

/// An address that nobody listens on. Somebody else may take it before the program does; then
/// the program says so and ends.
pub(crate) fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("looking for a free port")?;
    Ok(listener.local_addr()?)
}
