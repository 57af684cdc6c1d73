//! What a session is set to while commands run, and put back between them.

use sqlx::PgConnection;

/// Puts settings and role back, which one command must not leave to the next.
pub(crate) async fn reset(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql("RESET ROLE; RESET ALL").execute(connection).await.map(drop)
}

/// The same, and checks what was deferred: between commands that have nothing to do with each
/// other.
pub(crate) async fn tidy(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let statements = "SET CONSTRAINTS ALL IMMEDIATE; RESET ROLE; RESET ALL";
    sqlx::raw_sql(statements).execute(connection).await.map(drop)
}

/// Checks what a commit would check, and lets the next command defer again.
pub(crate) async fn check_deferred(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let statements = "SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED";
    sqlx::raw_sql(statements).execute(connection).await.map(drop)
}

/// Sets a command's context, where it has one, until the transaction ends.
pub(crate) async fn set_context(
    connection: &mut PgConnection,
    context: Option<&str>,
) -> Result<(), sqlx::Error> {
    let Some(context) = context else { return Ok(()) };
    sqlx::query("SELECT set_config('farwrite.context', $1, true)")
        .bind(context)
        .execute(connection)
        .await
        .map(drop)
}
