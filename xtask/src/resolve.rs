//! Which file defines what a path names, through re-exports.

use std::path::Path;

use crate::tree::{Modules, Segments};

/// Re-exports may name each other; a path of ours is never this deep.
const DEPTH: usize = 32;

/// The file that defines what `path` names inside module `here`. `None` where that is of another
/// crate, or a module itself.
pub(crate) fn file_of<'a>(
    modules: &'a Modules,
    here: &[String],
    path: &[String],
) -> Option<&'a Path> {
    walk(modules, here, path, true, DEPTH)
}

/// Follows `path` from module `at`. Only the first segment may be a keyword or a private import.
fn walk<'a>(
    modules: &'a Modules,
    at: &[String],
    path: &[String],
    is_first: bool,
    depth: usize,
) -> Option<&'a Path> {
    let depth = depth.checked_sub(1)?;
    let (name, rest) = path.split_first()?;
    if is_first {
        match name.as_str() {
            "crate" => return walk(modules, &[], rest, false, depth),
            "self" => return walk(modules, at, rest, true, depth),
            "super" => return walk(modules, at.split_last()?.1, rest, true, depth),
            _ => {}
        }
    }
    let module = modules.get(at)?;
    let child: Segments = [at, std::slice::from_ref(name)].concat();
    if modules.contains_key(&child) && !rest.is_empty() {
        return walk(modules, &child, rest, false, depth);
    }
    if module.items.contains(name) {
        return Some(&module.file);
    }
    // An import of the same name as its own first segment would ask for itself.
    let named = module.imports.iter().filter(|import| import.name.as_ref() == Some(name));
    for import in named {
        let path = [&import.path[..], rest].concat();
        if path != *[std::slice::from_ref(name), rest].concat()
            && let Some(file) = walk(modules, at, &path, true, depth)
        {
            return Some(file);
        }
    }
    let globs = module.imports.iter().filter(|import| import.name.is_none());
    globs.into_iter().find_map(|glob| {
        let path = [&glob.path[..], path].concat();
        walk(modules, at, &path, true, depth)
    })
}
