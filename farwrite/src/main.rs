//! The program `farwrite`, whose worker runs functions of the database. A worker program with
//! handlers in Rust looks the same, with handlers.

fn main() -> std::process::ExitCode {
    farwrite::cli::main(farwrite::worker::Handlers::new())
}
