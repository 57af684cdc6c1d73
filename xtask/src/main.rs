//! What `make check` asks of the tree beside the compiler: `cargo run -p xtask -- check`.
//!
//! | command | what it does |
//! |---|---|
//! | `check` | fails on a circle between files, a file over the limit, an SQL function defined twice |
//! | `api` | compares the public API of each library with its text in `docs/api`; `--bless` writes the texts |
//! | `figures` | counts lines, files, functions and public items |

mod api;
mod circles;
mod figures;
mod resolve;
mod sizes;
mod source;
mod sql;
mod tree;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, bail};

fn main() -> anyhow::Result<ExitCode> {
    if let Some(code) = api::as_rustdoc()? {
        return Ok(code);
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let root = root.parent().context("xtask stands in the workspace's root")?;
    let found = match arguments[..] {
        ["check"] => {
            let crates = source::crates(root)?;
            let mut found = circles::find(&crates)?;
            found.extend(sizes::find(root)?);
            found.extend(sql::find(root)?);
            found
        }
        ["api"] => api::compare(root)?,
        ["api", "--bless"] => api::bless(root)?,
        ["figures"] => figures::print(root)?,
        ["figures", other_root] => figures::print(&PathBuf::from(other_root))?,
        _ => bail!("usage: xtask check | api [--bless] | figures [ROOT]"),
    };
    found.iter().for_each(|line| println!("{line}"));
    Ok(if found.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
