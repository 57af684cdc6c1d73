//! `primary-worker`: the worker without handlers of its own; commands are functions of the
//! database.

fn main() -> std::process::ExitCode {
    farwrite_primary_worker::cli::main("primary-worker", farwrite_primary_worker::Handlers::new())
}
