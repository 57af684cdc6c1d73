//! The programs of this workspace, and where they may listen.

use std::{
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use farwrite_devstack::Devstack;

/// A program of this workspace, which was built beside this one. A test is built one folder below.
///
/// # Errors
/// When the program is not there.
pub fn program(name: &str) -> Result<PathBuf> {
    let this = std::env::current_exe().context("where this program is")?;
    let folder = this.parent().context("this program lies nowhere")?;
    let folder = folder.parent().filter(|_| folder.ends_with("deps")).unwrap_or(folder);
    let program = folder.join(name);
    ensure!(
        program.is_file(),
        "{} is not there: run `cargo build --workspace --bins{}` first",
        program.display(),
        if cfg!(debug_assertions) { "" } else { " --release" }
    );
    Ok(program)
}

/// Runs a program that ends by itself; a status that is no success is an error with its log.
pub(crate) async fn run_to_end(
    stack: &Devstack,
    command: Command,
    name: &str,
    within: Duration,
) -> Result<()> {
    let program = stack.spawn(command, name)?;
    let status = program.wait(within).await?;
    ensure!(
        status.success(),
        "{name} ended ({status})\nthe end of its log:\n{}",
        program.log_tail()
    );
    Ok(())
}

/// An address that nobody listens on. Another program may take the address before the caller does;
/// then the caller's program says so and ends.
pub(crate) fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("looking for a free port")?;
    Ok(listener.local_addr()?)
}
