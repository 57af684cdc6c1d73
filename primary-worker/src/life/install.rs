//! Bringing the `farwrite` schema of a database to this program's version: the steps of the tables,
//! each in a transaction of its own, then all functions in one.
//!
//! **The invariant**: the functions in force are all of one text, the one whose hash was written
//! down last. An install that fails leaves those that were there.
//!
//! Not here: whether anything is to be installed (`schema`).

use farwrite_schemas::sql::{self, FUNCTIONS};
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqlSafeStr, migrate::MigrateError};

use super::schema::{Found, FunctionsFound, migrator};

/// Brings the schema to this program's version: the steps that it lacks, and the functions.
pub(crate) async fn bring_up(
    connection: &mut PgConnection,
) -> Result<FunctionsFound, MigrateError> {
    migrator().run(&mut *connection).await?;
    let mut tx = connection.begin().await?;
    // A registration makes dispatchers from functions: it waits, or this does.
    sqlx::query("SELECT pg_advisory_xact_lock(hashtext('farwrite.functions'))")
        .execute(&mut *tx)
        .await?;
    let found = Found::read(&mut tx).await?;
    let functions = found.functions();
    if functions == FunctionsFound::Pending {
        install(&mut tx, found.installed.is_none()).await?;
    }
    tx.commit().await?;
    Ok(functions)
}

/// Installs all functions, drops those of the last install that have no text any more, and makes the
/// dispatchers anew.
/// One that keeps its signature keeps its grants; one that answers something else than before is
/// made again.
async fn install(tx: &mut PgConnection, is_first: bool) -> Result<(), sqlx::Error> {
    // Each twice: unchecked first, since a function may name one that comes later, then checked.
    sqlx::raw_sql("SET LOCAL search_path = pg_catalog; SET LOCAL check_function_bodies = off")
        .execute(&mut *tx)
        .await?;
    let mut signatures = Vec::new();
    for function in FUNCTIONS {
        let mut savepoint = tx.begin().await?;
        let made = sqlx::raw_sql(function.text).execute(&mut *savepoint).await;
        let signature = function.signature().unwrap_or_default();
        match made {
            Ok(_) => savepoint.commit().await?,
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("42P13") => {
                savepoint.rollback().await?;
                drop_function(tx, &signature).await?;
                if let Some(dispatcher) = function.made_from_it() {
                    drop_function(tx, &dispatcher).await?;
                }
                sqlx::raw_sql(function.text).execute(&mut *tx).await?;
            }
            Err(error) => return Err(error),
        }
        signatures.push(signature);
        signatures.extend(function.made_from_it());
    }
    sqlx::raw_sql("SET LOCAL check_function_bodies = on").execute(&mut *tx).await?;
    for function in FUNCTIONS {
        sqlx::raw_sql(function.text).execute(&mut *tx).await?;
    }
    let gone: Vec<String> = sqlx::query_scalar(
        "SELECT to_regprocedure(old)::text
         FROM (SELECT signatures FROM farwrite.function_installs ORDER BY install_id DESC LIMIT 1) last,
              unnest(last.signatures) old
         WHERE to_regprocedure(old) IS NOT NULL
           AND to_regprocedure(old) <> ALL (SELECT to_regprocedure(new) FROM unnest($1) new WHERE to_regprocedure(new) IS NOT NULL)",
    )
    .bind(&signatures)
    .fetch_all(&mut *tx)
    .await?;
    for signature in gone {
        drop_function(tx, &signature).await?;
    }
    if is_first {
        sqlx::query(
            "SELECT farwrite.register('row.' || verb, format('farwrite.row_%s(jsonb,farwrite.meta)', verb)::regprocedure)
             FROM unnest(ARRAY['insert', 'update', 'upsert', 'delete']) verb",
        )
        .execute(&mut *tx)
        .await?;
    }
    sqlx::query("SELECT farwrite.make_dispatcher()").execute(&mut *tx).await?;
    sqlx::query(
        "INSERT INTO farwrite.function_installs (revision, hash, signatures) VALUES ($1, $2, $3)",
    )
    .bind(sql::FUNCTIONS_REVISION)
    .bind(sql::functions_hash())
    .bind(&signatures)
    .execute(tx)
    .await?;
    Ok(())
}

async fn drop_function(tx: &mut PgConnection, signature: &str) -> Result<(), sqlx::Error> {
    let drop = AssertSqlSafe(format!("DROP FUNCTION IF EXISTS {signature}")).into_sql_str();
    sqlx::raw_sql(drop).execute(tx).await?;
    Ok(())
}
