//! What the demo was told to do.

use std::{path::PathBuf, time::Duration};

use anyhow::{Result, ensure};
use farwrite_producer::Origin;

/// What applies the commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HandlerKind {
    /// Functions of the database, run by `farwrite worker`.
    Sql,
    /// Handlers in Rust, in `flights-worker`.
    Rust,
}

impl HandlerKind {
    /// As the flag has it.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Sql => "sql",
            Self::Rust => "rust",
        }
    }

    /// The program that runs it.
    pub(super) const fn program(self) -> &'static str {
        match self {
            Self::Sql => "farwrite",
            Self::Rust => "flights-worker",
        }
    }
}

/// The demo's settings.
#[derive(Clone, Debug)]
pub(super) struct DemoSettings {
    /// The file of departures.
    pub(super) flights: PathBuf,
    /// The regions, the primary's first.
    pub(super) regions: Vec<String>,
    /// Round trip between the first region and each other one.
    pub(super) rtt: Duration,
    /// What applies the commands.
    pub(super) handler: HandlerKind,
    /// Where the report goes as JSON.
    pub(super) json: PathBuf,
}

impl DemoSettings {
    /// Checks what the command line's types do not.
    ///
    /// # Errors
    /// When the regions' names are no names of regions, or one comes twice.
    pub(super) fn validate(&self) -> Result<()> {
        for (index, region) in self.regions.iter().enumerate() {
            // A name becomes a part of subjects. The stack has stricter rules of its own.
            Origin::new(region)?;
            ensure!(!self.regions[..index].contains(region), "region {region:?} is named twice");
        }
        Ok(())
    }
}
