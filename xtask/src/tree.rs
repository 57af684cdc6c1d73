//! The modules of one crate: what each defines, imports and mentions. Tests are left out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use proc_macro2::{TokenStream, TokenTree};
use syn::{
    Attribute, Item, Macro, UseTree, Visibility,
    visit::{self, Visit},
};

/// The segments of a path.
pub(crate) type Segments = Vec<String>;

/// A module, of a file of its own or inside another's file.
#[derive(Default)]
pub(crate) struct Module {
    pub(crate) file: PathBuf,
    /// Names that it defines.
    pub(crate) items: BTreeSet<String>,
    pub(crate) imports: Vec<Import>,
    /// Paths that its code mentions outside `use`.
    pub(crate) mentions: BTreeSet<Segments>,
}

/// One name that a `use` brings.
pub(crate) struct Import {
    /// The name here; `None` for a glob.
    pub(crate) name: Option<String>,
    pub(crate) path: Segments,
    pub(crate) is_reexport: bool,
}

/// Modules by their path; the crate's root has none.
pub(crate) type Modules = BTreeMap<Segments, Module>;

/// Reads the library of a crate, or its program where it has no library.
pub(crate) fn read(src: &Path) -> anyhow::Result<Modules> {
    let mut modules = Modules::new();
    let root = ["lib.rs", "main.rs"].iter().map(|name| src.join(name)).find(|path| path.exists());
    if let Some(root) = root {
        read_file(&root, src, Vec::new(), &mut modules)?;
    }
    Ok(modules)
}

fn read_file(
    file: &Path,
    folder: &Path,
    path: Segments,
    modules: &mut Modules,
) -> anyhow::Result<()> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let parsed = syn::parse_file(&text).with_context(|| file.display().to_string())?;
    read_items(&parsed.items, file, folder, path, modules)
}

fn read_items(
    items: &[Item],
    file: &Path,
    folder: &Path,
    path: Segments,
    modules: &mut Modules,
) -> anyhow::Result<()> {
    let mut module = Module { file: file.to_path_buf(), ..Module::default() };
    for item in items.iter().filter(|item| !is_test(attributes(item))) {
        match item {
            Item::Mod(inner) => {
                let name = inner.ident.to_string();
                let path = [&path[..], std::slice::from_ref(&name)].concat();
                if let Some((_, items)) = &inner.content {
                    read_items(items, file, &folder.join(&name), path, modules)?;
                    continue;
                }
                let beside = folder.join(format!("{name}.rs"));
                let within = folder.join(&name).join("mod.rs");
                let file = if beside.exists() { beside } else { within };
                read_file(&file, &folder.join(&name), path, modules)?;
            }
            Item::Use(import) => {
                let is_reexport = !matches!(import.vis, Visibility::Inherited);
                flatten(&import.tree, &[], is_reexport, &mut module.imports);
            }
            other => {
                module.items.extend(name_of(other));
                Mentions(&mut module.mentions).visit_item(other);
            }
        }
    }
    modules.insert(path, module);
    Ok(())
}

/// Whether an item stands under `#[cfg(test)]`, or is a test.
pub(crate) fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let is_cfg_test = attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"));
        let name = attribute.path().segments.last().map(|segment| segment.ident.to_string());
        is_cfg_test || name.is_some_and(|name| name == "test")
    })
}

/// The attributes of an item.
pub(crate) fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn name_of(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(ident.to_string())
}

fn flatten(tree: &UseTree, before: &[String], is_reexport: bool, imports: &mut Vec<Import>) {
    let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
    let mut add = |name: Option<String>, path: Segments| {
        imports.push(Import { name, path, is_reexport });
    };
    match tree {
        UseTree::Path(path) => flatten(&path.tree, &with(&path.ident), is_reexport, imports),
        UseTree::Name(name) if name.ident == "self" => {
            add(before.last().cloned(), before.to_vec());
        }
        UseTree::Name(name) => add(Some(name.ident.to_string()), with(&name.ident)),
        UseTree::Rename(rename) => add(Some(rename.rename.to_string()), with(&rename.ident)),
        UseTree::Glob(_) => add(None, before.to_vec()),
        UseTree::Group(group) => {
            group.items.iter().for_each(|tree| flatten(tree, before, is_reexport, imports));
        }
    }
}

/// Collects every path, also from the tokens of macros.
struct Mentions<'a>(&'a mut BTreeSet<Segments>);

impl<'ast> Visit<'ast> for Mentions<'_> {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.0.insert(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, called: &'ast Macro) {
        self.tokens(called.tokens.clone());
        visit::visit_macro(self, called);
    }

    fn visit_item_use(&mut self, import: &'ast syn::ItemUse) {
        let mut imports = Vec::new();
        flatten(&import.tree, &[], false, &mut imports);
        self.0.extend(imports.into_iter().map(|import| import.path));
    }
}

impl Mentions<'_> {
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path = Segments::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.0.insert(std::mem::take(&mut path));
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                other => {
                    self.0.insert(std::mem::take(&mut path));
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.tokens(group.stream());
                    }
                }
            }
        }
        self.0.insert(path);
    }
}
