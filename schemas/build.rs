//! Finds the SQL files of `sql/` and includes them, in the order of their paths: no list of them is
//! kept by hand. `src/sql.rs` says what they are.

use std::{
    env,
    error::Error,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

fn main() -> Result<(), Box<dyn Error>> {
    let sql = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("sql");
    println!("cargo::rerun-if-changed={}", sql.display());
    let mut code = String::from(
        "/// Every step of the tables, oldest first.\npub const TABLES: &[TableStep] = &[\n",
    );
    for file in sorted(&sql.join("tables"))? {
        let stem = stem(&file)?;
        let (number, what) =
            stem.split_once('_').ok_or(format!("{stem}: a step is NNNN_what.sql"))?;
        let (version, what) = (number.parse::<i64>()?, what.replace('_', " "));
        writeln!(
            code,
            "    TableStep {{ version: {version}, description: {what:?}, text: include_str!({file:?}) }},"
        )?;
    }
    code +=
        "];\n\n/// Every function, by room and name.\npub const FUNCTIONS: &[FunctionFile] = &[\n";
    for room in sorted(&sql.join("functions"))? {
        for file in sorted(&room)? {
            let (room, name) = (stem(&room)?, stem(&file)?);
            writeln!(
                code,
                "    FunctionFile {{ room: {room:?}, name: {name:?}, text: include_str!({file:?}) }},"
            )?;
        }
    }
    code += "];\n";
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("sql.rs"), code)?;
    Ok(())
}

fn sorted(folder: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        paths.push(entry?.path());
    }
    paths.sort();
    Ok(paths)
}

fn stem(path: &Path) -> Result<&str, String> {
    path.file_stem().and_then(|stem| stem.to_str()).ok_or(format!("{}: not UTF-8", path.display()))
}
