//! A small app that runs in many regions: notes that their author always sees.
//!
//! Where NATS and the databases are, the environment says (see `Producer::from_env`); `LISTEN` is
//! the address, `127.0.0.1:8080` unless said otherwise. `notes.sql` beside this file makes the table
//! and the command.

mod app;

use farwrite_producer::Producer;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let producer = Producer::from_env().await?;
    let address = std::env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:8080".to_owned());
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app::router(app::layer(producer)?)).await?;
    Ok(())
}
