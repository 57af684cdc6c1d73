//! `flights-worker`: a worker with handlers in Rust, in place of functions of the database.
//!
//! The program has every subcommand of `farwrite`. A handler runs in the transaction of its batch. A handler does not look for duplicates, takes no lock for
//! the sake of order, and does not commit.

use std::process::ExitCode;

use farwrite::{
    cli,
    worker::{Handler, HandlerError, Handlers, HandlersError, Meta},
};
use farwrite_loadtest::flights::{Cancelled, Departed, Flight, Flown};
use sqlx::PgConnection;

struct Depart;

impl Handler<Departed> for Depart {
    async fn apply(
        &self,
        connection: &mut PgConnection,
        Departed(flight): Departed,
        meta: &Meta,
    ) -> Result<Flown, HandlerError> {
        let (legs, miles) = sqlx::query_as(
            "INSERT INTO demo.aircraft AS a VALUES ($1, 1, $2, $3, $4)
             ON CONFLICT (aircraft) DO UPDATE SET legs = a.legs + 1,
                 miles = a.miles + excluded.miles, at = excluded.at, sequence = excluded.sequence
             RETURNING legs, miles",
        )
        .bind(&flight.aircraft)
        .bind(flight.distance)
        .bind(&flight.dest)
        .bind(meta.sequence.cast_signed())
        .fetch_one(&mut *connection)
        .await?;
        book(connection, &flight, meta, true, legs).await?;
        Ok(Flown { legs, miles })
    }
}

struct Cancel;

impl Handler<Cancelled> for Cancel {
    async fn apply(
        &self,
        connection: &mut PgConnection,
        Cancelled(flight): Cancelled,
        meta: &Meta,
    ) -> Result<Flown, HandlerError> {
        let flown = sqlx::query_as("SELECT legs, miles FROM demo.aircraft WHERE aircraft = $1")
            .bind(&flight.aircraft)
            .fetch_optional(&mut *connection)
            .await?;
        let (legs, miles) = flown.unwrap_or_default();
        book(connection, &flight, meta, false, legs).await?;
        Ok(Flown { legs, miles })
    }
}

async fn book(
    connection: &mut PgConnection,
    flight: &Flight,
    meta: &Meta,
    departed: bool,
    legs: i32,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO demo.flights
         VALUES ($1, $2, $3, $4, $5::date, $6, $7, $8, $9, $10, $11, $12, $13)",
    )
    .bind(meta.id.uuid())
    .bind(flight.line)
    .bind(meta.origin.as_str())
    .bind(&flight.aircraft)
    .bind(&flight.day)
    .bind(&flight.carrier)
    .bind(flight.flight)
    .bind(&flight.origin)
    .bind(&flight.dest)
    .bind(flight.distance)
    .bind(departed)
    .bind(legs)
    .bind(meta.sequence.cast_signed())
    .execute(connection)
    .await
    .map(drop)
}

fn main() -> Result<ExitCode, HandlersError> {
    let handlers = Handlers::new().register(Depart)?.register(Cancel)?;
    Ok(cli::main(handlers))
}
