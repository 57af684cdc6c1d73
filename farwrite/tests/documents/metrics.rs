//! The names of the metrics.

use std::collections::BTreeSet;

use crate::sources::{documents, sources, words};

const PREFIXES: [&str; 3] = ["farwrite_worker_", "farwrite_watcher_", "farwrite_producer_"];

fn names(text: &str) -> BTreeSet<String> {
    let found = words(text, "farwrite_", |c| c.is_ascii_lowercase() || c == '_');
    let is_metric = |name: &String| PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    // A name that ends in a line stands for all that begin so.
    found.into_iter().filter(|name| is_metric(name) && !name.ends_with('_')).collect()
}

#[test]
fn the_table_of_metrics_has_every_name_and_no_document_has_another() {
    let recorded: BTreeSet<String> = ["producer/src", "primary-worker/src", "lsn-watcher/src"]
        .into_iter()
        .flat_map(|folder| sources(folder, &["rs"]))
        .filter(|source| source.path.ends_with("metrics.rs"))
        .flat_map(|source| names(&source.text))
        .collect();
    assert!(recorded.len() > 40, "the names were not found: {recorded:?}");
    let documents = documents();
    let page = documents.iter().find(|page| page.path.ends_with("metrics.md"));
    assert_eq!(names(&page.expect("a page of metrics").text), recorded);
    for document in &documents {
        let others: Vec<_> = names(&document.text).difference(&recorded).cloned().collect();
        // Names of crates are written alike.
        let others: Vec<_> = others.iter().filter(|name| !name.contains("_primary_")).collect();
        assert!(others.is_empty(), "{}: no metrics: {others:?}", document.path);
    }
}
