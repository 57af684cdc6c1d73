//! `bench-worker`: a worker whose one handler is one statement, for the benchmark.

use std::process::ExitCode;

use farwrite::{
    cli,
    worker::{Handler, HandlerError, Handlers, HandlersError, Meta},
};
use farwrite_loadtest::bench::PutInRust;
use sqlx::PgConnection;

struct PutHandler;

impl Handler<PutInRust> for PutHandler {
    async fn apply(
        &self,
        connection: &mut PgConnection,
        PutInRust(put): PutInRust,
        _: &Meta,
    ) -> Result<i64, HandlerError> {
        Ok(put.store(connection).await?)
    }
}

fn main() -> Result<ExitCode, HandlersError> {
    Ok(cli::main(Handlers::new().register(PutHandler)?))
}
