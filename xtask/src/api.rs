//! The public API of each library as text, under version control in `docs/api`.
//!
//! The text is made from rustdoc's JSON, which the stable compiler gives out only when it is told to
//! (`RUSTC_BOOTSTRAP`). That variable would have every build script run again, so that it is set for
//! rustdoc alone: cargo calls this program as its rustdoc.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, ensure};

/// Libraries that an app or an operator links.
const LIBRARIES: [&str; 4] =
    ["farwrite-schemas", "farwrite-producer", "farwrite-primary-worker", "farwrite-lsn-watcher"];

/// Set where cargo calls this program as rustdoc.
const AS_RUSTDOC: &str = "XTASK_AS_RUSTDOC";

/// Becomes rustdoc where cargo asks for it.
pub(crate) fn as_rustdoc() -> anyhow::Result<Option<ExitCode>> {
    let Some(rustdoc) = std::env::var_os(AS_RUSTDOC) else { return Ok(None) };
    let arguments = std::env::args_os().skip(1);
    Err(Command::new(rustdoc).args(arguments).env("RUSTC_BOOTSTRAP", "1").exec().into())
}

/// A line for each library whose API is not what its text says.
pub(crate) fn compare(root: &Path) -> anyhow::Result<Vec<String>> {
    document(root)?;
    let mut found = Vec::new();
    for library in LIBRARIES {
        let now = text(root, library)?;
        let before = fs::read_to_string(path(root, library)).unwrap_or_default();
        let lacks = |text: &str, line: &str| !text.lines().any(|other| other == line);
        let added = now.lines().filter(|line| lacks(&before, line)).map(|line| ('+', line));
        let gone = before.lines().filter(|line| lacks(&now, line)).map(|line| ('-', line));
        found.extend(added.chain(gone).map(|(sign, line)| format!("{library}: {sign} {line}")));
    }
    if !found.is_empty() {
        found.push("the public API has changed; `make api` writes it down".to_owned());
    }
    Ok(found)
}

/// Writes the texts.
pub(crate) fn bless(root: &Path) -> anyhow::Result<Vec<String>> {
    document(root)?;
    fs::create_dir_all(root.join("docs/api"))?;
    for library in LIBRARIES {
        fs::write(path(root, library), text(root, library)?)?;
    }
    Ok(Vec::new())
}

fn path(root: &Path, library: &str) -> PathBuf {
    root.join("docs/api").join(format!("{library}.txt"))
}

/// Has rustdoc write its JSON, with the features that the workspace's checks build.
fn document(root: &Path) -> anyhow::Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .current_dir(root)
        .args(["doc", "--quiet", "--workspace", "--no-deps", "--lib"])
        .env("RUSTDOCFLAGS", "-Zunstable-options --output-format json --cap-lints allow")
        .env(AS_RUSTDOC, std::env::var_os("RUSTDOC").unwrap_or_else(|| "rustdoc".into()))
        .env("RUSTDOC", std::env::current_exe()?)
        .status()?;
    ensure!(status.success(), "rustdoc failed");
    Ok(())
}

fn text(root: &Path, library: &str) -> anyhow::Result<String> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    let json = target.join("doc").join(format!("{}.json", library.replace('-', "_")));
    let api = public_api::Builder::from_rustdoc_json(json)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .build()
        .with_context(|| format!("rustdoc's JSON of {library} goes with rust-toolchain.toml"))?;
    Ok(api.to_string())
}
