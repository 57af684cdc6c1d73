//! Circles between files. An import is counted to the file that defines the item; declaring a
//! module and re-exporting a name import nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use crate::{
    resolve,
    source::Crate,
    tree::{self, Modules},
};

type Edges<'a> = BTreeMap<&'a Path, BTreeSet<&'a Path>>;

/// A line for each circle.
pub(crate) fn find(crates: &[Crate]) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for Crate { name, src } in crates {
        let modules = tree::read(src)?;
        for circle in circles(&edges(&modules)) {
            let files = circle.iter().map(|file| file.strip_prefix(src).unwrap_or(file));
            let files: Vec<_> = files.map(|file| file.display().to_string()).collect();
            found.push(format!("{name}: a circle of {} files: {}", files.len(), files.join(" ")));
        }
    }
    Ok(found)
}

fn edges(modules: &Modules) -> Edges<'_> {
    let mut edges = Edges::new();
    for (here, module) in modules {
        let imports = module.imports.iter().filter(|import| {
            let is_mentioned = |name| module.mentions.iter().any(|path| path.first() == Some(name));
            !import.is_reexport || import.name.as_ref().is_some_and(is_mentioned)
        });
        let paths = imports.map(|import| &import.path).chain(&module.mentions);
        let files = paths.filter_map(|path| resolve::file_of(modules, here, path));
        let others = files.filter(|file| *file != module.file);
        edges.entry(module.file.as_path()).or_default().extend(others);
    }
    edges
}

/// Files that reach each other, each group once.
fn circles<'a>(edges: &Edges<'a>) -> Vec<BTreeSet<&'a Path>> {
    let reached: BTreeMap<&Path, BTreeSet<&Path>> =
        edges.keys().map(|file| (*file, reached(edges, file))).collect();
    let mut circles: Vec<BTreeSet<&Path>> = Vec::new();
    for (file, there) in &reached {
        let group: BTreeSet<&Path> =
            there.iter().filter(|other| reached[*other].contains(file)).copied().collect();
        if !group.is_empty() && !circles.contains(&group) {
            circles.push(group);
        }
    }
    circles
}

fn reached<'a>(edges: &Edges<'a>, from: &Path) -> BTreeSet<&'a Path> {
    let mut seen = BTreeSet::new();
    let mut open: Vec<&Path> = edges[from].iter().copied().collect();
    while let Some(file) = open.pop() {
        if seen.insert(file) {
            open.extend(&edges[file]);
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let src = folder.path().to_path_buf();
        find(&[Crate { name: "example".to_owned(), src }]).unwrap()
    }

    #[test]
    fn two_files_that_import_each_other_are_a_circle() {
        let a = "use crate::b::B; pub struct A(B);";
        let b = "use crate::a::A; pub struct B(Option<Box<A>>);";
        let found = found(&[("lib.rs", "mod a; mod b;"), ("a.rs", a), ("b.rs", b)]);
        assert_eq!(found, ["example: a circle of 2 files: a.rs b.rs"]);
    }

    #[test]
    fn a_circle_through_a_door_is_found() {
        let a = "use crate::room; pub struct A; fn f() { room::g(); }";
        let b = "pub fn g() { let _ = crate::a::A; }";
        let files = [
            ("lib.rs", "mod a; mod room;"),
            ("a.rs", a),
            ("room/mod.rs", "mod b; pub(crate) use b::g;"),
            ("room/b.rs", b),
        ];
        assert_eq!(found(&files), ["example: a circle of 2 files: a.rs room/b.rs"]);
    }

    #[test]
    fn a_path_within_a_macro_counts() {
        let a = "use crate::b; pub struct A; fn f() { select! { () = b::g() => {} } }";
        let b = "pub fn g() { let _ = crate::a::A; }";
        let found = found(&[("lib.rs", "mod a; mod b;"), ("a.rs", a), ("b.rs", b)]);
        assert_eq!(found, ["example: a circle of 2 files: a.rs b.rs"]);
    }

    #[test]
    fn a_door_and_tests_are_no_circle() {
        let door = "mod a; mod b; pub use a::A; pub use b::B;";
        let a = "pub struct A; #[cfg(test)] mod tests { use crate::b::B; }";
        let b = "use super::A; pub struct B(A);";
        let files =
            [("lib.rs", "mod room;"), ("room/mod.rs", door), ("room/a.rs", a), ("room/b.rs", b)];
        assert_eq!(found(&files), [""; 0]);
    }

    #[test]
    fn a_door_that_works_with_what_its_rooms_need_is_a_circle() {
        let door = "mod a; pub struct D; fn f() { a::g(); }";
        let files = [
            ("lib.rs", "mod room;"),
            ("room/mod.rs", door),
            ("room/a.rs", "pub fn g() { let _ = super::D; }"),
        ];
        assert_eq!(found(&files), ["example: a circle of 2 files: room/a.rs room/mod.rs"]);
    }
}
