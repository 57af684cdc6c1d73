//! From the command line to a subcommand.

use std::process::ExitCode;

use clap::ArgMatches;
use farwrite_internal::{
    Chain,
    program::settings::{SettingsError, parse},
};

use crate::worker::Handlers;

use super::{operate, runtime::refuse, tree, verbs, watcher, worker};

/// Runs the command line; the whole of a program's `main`.
///
/// A worker program with handlers in Rust passes them here, and has every subcommand of `farwrite`:
///
/// ```no_run
/// use farwrite::{
///     Command, cli,
///     sqlx::PgConnection,
///     worker::{Handler, HandlerError, Handlers, HandlersError, Meta},
/// };
///
/// # #[derive(serde::Serialize, serde::Deserialize)]
/// # struct PlaceOrder { article: String }
/// # impl Command for PlaceOrder { const NAME: &'static str = "order.place"; type Output = i64; }
/// struct Place;
///
/// impl Handler<PlaceOrder> for Place {
///     async fn apply(
///         &self,
///         transaction: &mut PgConnection,
///         order: PlaceOrder,
///         _: &Meta,
///     ) -> Result<i64, HandlerError> {
///         let insert = "INSERT INTO orders (article) VALUES ($1) RETURNING id";
///         let insert = farwrite::sqlx::query_scalar(insert).bind(order.article);
///         Ok(insert.fetch_one(transaction).await?)
///     }
/// }
///
/// fn main() -> Result<std::process::ExitCode, HandlersError> {
///     Ok(cli::main(Handlers::new().register(Place)?))
/// }
/// ```
#[must_use]
pub fn main(handlers: Handlers) -> ExitCode {
    match parse(tree::command()) {
        Ok(matches) => start(&matches, handlers).unwrap_or_else(|message| refuse(&message)),
        // Prints help and version too, and ends with 0 for these and 2 for an error.
        Err(SettingsError::Flags(error)) => error.exit(),
        Err(error) => refuse(&Chain(&error)),
    }
}

/// Starts the subcommand, or says which setting is not usable.
fn start(matches: &ArgMatches, handlers: Handlers) -> Result<ExitCode, String> {
    let (name, matches) = matches.subcommand().ok_or("choose a command")?;
    match name {
        "worker" => worker::start(matches, handlers),
        "watcher" => watcher::start(matches),
        name if verbs::NAMES.contains(&name) => verbs::start(name, matches),
        name => operate::start(name, matches),
    }
}
