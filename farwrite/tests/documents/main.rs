//! The documents say what the program does: every name in them is compared with the program's own.
//!
//! Documents are all Markdown files of the repository, found from its root. The command line is
//! clap's tree; the names of metrics and the codes are literals of the sources.

mod codes;
mod commands;
mod metrics;
mod settings;
mod sources;
mod statuses;
