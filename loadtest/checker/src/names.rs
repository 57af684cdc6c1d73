//! Texts that come again and again (clients, regions, keys), held once and compared as numbers.

use std::collections::HashMap;

/// A text of some [`NameTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Name(usize);

/// The texts.
#[derive(Debug, Default)]
pub(crate) struct NameTable {
    texts: Vec<String>,
    numbers: HashMap<String, Name>,
}

impl NameTable {
    pub(crate) fn name(&mut self, text: &str) -> Name {
        if let Some(name) = self.numbers.get(text) {
            return *name;
        }
        let name = Name(self.texts.len());
        self.texts.push(text.to_owned());
        self.numbers.insert(text.to_owned(), name);
        name
    }

    pub(crate) fn text(&self, name: Name) -> &str {
        self.texts.get(name.0).map_or("", String::as_str)
    }
}
