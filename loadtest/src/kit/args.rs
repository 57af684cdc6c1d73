//! Arguments that several subcommands have.

use std::path::PathBuf;

use clap::{Arg, value_parser};

/// `--name N`, of at most a hundred million; zero only where that is the least.
pub(crate) fn number(
    name: &'static str,
    default: &'static str,
    least: u64,
    help: &'static str,
) -> Arg {
    let parser = value_parser!(u64).range(least..=100_000_000);
    Arg::new(name).long(name).value_name("N").default_value(default).value_parser(parser).help(help)
}

/// `--name FILE`.
pub(crate) fn file(name: &'static str, help: &'static str) -> Arg {
    let parser = value_parser!(PathBuf);
    Arg::new(name).long(name).value_name("FILE").value_parser(parser).help(help)
}
