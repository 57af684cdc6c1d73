//! How much there is: lines, files, functions, public items. Tests are left out.

use std::{fs, path::Path};

use syn::{Item, spanned::Spanned, visit::Visit};

use crate::{source, tree};

/// Lines to print.
pub(crate) fn print(root: &Path) -> anyhow::Result<Vec<String>> {
    let (mut files, mut functions, mut public) = (Vec::new(), Vec::new(), 0);
    for file in source::files(root, &["rs"])? {
        let name = file.strip_prefix(root)?;
        let is_source = name.iter().any(|part| part == "src");
        if !is_source || name.starts_with("xtask") {
            continue;
        }
        let text = fs::read_to_string(&file)?;
        let parsed = syn::parse_file(&text)?;
        let mut lines = text.lines().count();
        let mut lengths = Lengths::default();
        for item in &parsed.items {
            if tree::is_test(tree::attributes(item)) {
                lines -= length(item);
            } else {
                lengths.visit_item(item);
            }
        }
        files.push(lines);
        functions.extend(lengths.functions);
        public += lengths.public;
    }
    let sql = source::files(root, &["sql"])?;
    let of_schema = sql.iter().filter(|file| {
        let name = file.strip_prefix(root).unwrap_or(file);
        name.starts_with("schemas") && !name.ends_with("schema.sql")
    });
    let mut sql_lines = Vec::new();
    for file in of_schema {
        sql_lines.push(fs::read_to_string(file)?.lines().count());
    }
    println!("Rust without tests: {} lines in {} files", files.iter().sum::<usize>(), files.len());
    println!("  lines of a file: median {}, p90 {}", at(&mut files, 50), at(&mut files, 90));
    println!(
        "  lines of a function: median {}, p90 {}",
        at(&mut functions, 50),
        at(&mut functions, 90)
    );
    println!("  `pub` items, fields and methods: {public}");
    println!(
        "SQL of the schema: {} lines in {} files",
        sql_lines.iter().sum::<usize>(),
        sql_lines.len()
    );
    println!(
        "  lines of a file: median {}, p90 {}",
        at(&mut sql_lines, 50),
        at(&mut sql_lines, 90)
    );
    Ok(Vec::new())
}

fn at(values: &mut [usize], percent: usize) -> usize {
    values.sort_unstable();
    values.get(values.len().saturating_sub(1) * percent / 100).copied().unwrap_or(0)
}

fn length(item: &impl Spanned) -> usize {
    let span = item.span();
    span.end().line + 1 - span.start().line
}

#[derive(Default)]
struct Lengths {
    functions: Vec<usize>,
    public: usize,
}

impl<'ast> Visit<'ast> for Lengths {
    fn visit_item(&mut self, item: &'ast Item) {
        if !tree::is_test(tree::attributes(item)) {
            syn::visit::visit_item(self, item);
        }
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.functions.push(length(function));
        syn::visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.functions.push(length(function));
        syn::visit::visit_impl_item_fn(self, function);
    }

    fn visit_visibility(&mut self, visibility: &'ast syn::Visibility) {
        self.public += usize::from(matches!(visibility, syn::Visibility::Public(_)));
    }
}
