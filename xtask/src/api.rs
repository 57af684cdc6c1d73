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

/// Libraries that an app or an operator links, and the features that their text shows.
const LIBRARIES: [(&str, &str); 4] = [
    ("farwrite-schemas", ""),
    ("farwrite-producer", "web"),
    ("farwrite-primary-worker", ""),
    ("farwrite-lsn-watcher", ""),
];

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
    let mut found = Vec::new();
    for (library, features) in LIBRARIES {
        let path = path(root, library);
        let (now, before) =
            (text(root, library, features)?, fs::read_to_string(&path).unwrap_or_default());
        for line in now.lines().filter(|line| !before.lines().any(|other| other == *line)) {
            found.push(format!("{library}: + {line}"));
        }
        for line in before.lines().filter(|line| !now.lines().any(|other| other == *line)) {
            found.push(format!("{library}: - {line}"));
        }
    }
    if !found.is_empty() {
        found.push(
            "the public API has changed: if that is meant, `make api` writes it down".to_owned(),
        );
    }
    Ok(found)
}

/// Writes the texts.
pub(crate) fn bless(root: &Path) -> anyhow::Result<Vec<String>> {
    fs::create_dir_all(root.join("docs/api"))?;
    for (library, features) in LIBRARIES {
        fs::write(path(root, library), text(root, library, features)?)?;
    }
    Ok(Vec::new())
}

fn path(root: &Path, library: &str) -> PathBuf {
    root.join("docs/api").join(format!("{library}.txt"))
}

fn text(root: &Path, library: &str, features: &str) -> anyhow::Result<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let target = root.join("target/api");
    let status = Command::new(cargo)
        .current_dir(root)
        .args(["rustdoc", "--quiet", "--lib", "--package", library, "--features", features])
        .arg("--target-dir")
        .arg(&target)
        .args(["--", "-Zunstable-options", "--output-format", "json", "--cap-lints", "allow"])
        .env(AS_RUSTDOC, std::env::var_os("RUSTDOC").unwrap_or_else(|| "rustdoc".into()))
        .env("RUSTDOC", std::env::current_exe()?)
        .status()?;
    ensure!(status.success(), "rustdoc of {library} failed");
    let json = target.join("doc").join(format!("{}.json", library.replace('-', "_")));
    let api = public_api::Builder::from_rustdoc_json(json)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .build()
        .with_context(|| {
            format!("rustdoc's JSON of {library}; its form goes with rust-toolchain.toml")
        })?;
    Ok(api.to_string())
}
