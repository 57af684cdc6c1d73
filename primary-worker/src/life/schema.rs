//! The `farwrite` schema of a database against the one that this program knows.
//!
//! **Who is authoritative.** The database says which steps of the tables it has, which texts of the
//! functions were installed, and which protocol it wants workers to speak.
//!
//! **Which worker runs on which schema.** A worker needs every step and the functions that it
//! knows, and runs on a schema that has gone further: with more steps, or with functions that were
//! installed after its own. What goes further either leaves older workers be, or raises
//! `farwrite.requires_protocol()`, and then they refuse to start. So the schema goes first.
//!
//! **Which program is older** than the functions of a database: one whose revision is lower
//! ([`sql::FUNCTIONS_REVISION`]).
//!
//! Not here: making a schema so (`install`), and what a stream needs (`migrate`).

use farwrite_schemas::sql;
use sqlx::{
    AssertSqlSafe, PgConnection, SqlSafeStr,
    migrate::{MigrateError, Migration, MigrationType, Migrator},
};

use crate::primary::PrimaryError;

/// The protocol between a worker and the schema that this program speaks. It is raised, here and
/// in `farwrite.requires_protocol()`, when a worker without the change would fail on the new schema
/// or do wrong on it: a function that it calls is gone or means something else, or a row that it
/// writes lacks what others rely on. What only adds does not raise it.
pub(crate) const PROTOCOL: i32 = 1;

/// The functions of a database against those of this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FunctionsFound {
    /// They are this program's.
    Ready,
    /// `migrate` installs this program's.
    Pending,
    /// They are of a newer program, and stay.
    Newer,
}

/// What a database has.
pub(crate) struct Found {
    /// The steps of the tables that were applied: number and checksum.
    steps: Vec<(i64, Vec<u8>)>,
    /// Revision and hash of the functions that were installed last.
    pub(super) installed: Option<(i32, String)>,
    /// The lowest protocol of workers that it allows; `None` before functions were installed.
    pub(crate) required_protocol: Option<i32>,
}

impl Found {
    pub(crate) async fn read(connection: &mut PgConnection) -> Result<Self, sqlx::Error> {
        let (has_steps, has_installs, has_protocol): (bool, bool, bool) = sqlx::query_as(
            "SELECT to_regclass($1) IS NOT NULL, to_regclass('farwrite.function_installs') IS NOT NULL,
                    to_regprocedure('farwrite.requires_protocol()') IS NOT NULL",
        )
        .bind(sql::STEPS_TABLE)
        .fetch_one(&mut *connection)
        .await?;
        let mut found = Self { steps: Vec::new(), installed: None, required_protocol: None };
        if has_steps {
            let steps = "SELECT version, checksum FROM farwrite.migrations WHERE success";
            found.steps = sqlx::query_as(steps).fetch_all(&mut *connection).await?;
        }
        if has_installs {
            let last = "SELECT revision, hash FROM farwrite.function_installs
                        ORDER BY install_id DESC LIMIT 1";
            found.installed = sqlx::query_as(last).fetch_optional(&mut *connection).await?;
        }
        if has_protocol {
            let protocol = "SELECT farwrite.requires_protocol()";
            found.required_protocol =
                Some(sqlx::query_scalar(protocol).fetch_one(&mut *connection).await?);
        }
        Ok(found)
    }

    /// The newest step of the tables; 0 for none.
    pub(crate) fn version(&self) -> i64 {
        self.steps.iter().map(|(version, _)| *version).max().unwrap_or(0)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    pub(crate) fn is_too_new(&self) -> bool {
        self.required_protocol.is_some_and(|required| required > PROTOCOL)
    }

    /// The steps that this program knows and the database lacks.
    pub(crate) fn pending(&self) -> Result<Vec<(i64, String)>, MigrateError> {
        let mut pending = Vec::new();
        for step in migrator().iter() {
            match self.steps.iter().find(|(version, _)| *version == step.version) {
                None => pending.push((step.version, step.description.to_string())),
                Some((_, checksum)) if *checksum != *step.checksum => {
                    return Err(MigrateError::VersionMismatch(step.version));
                }
                Some(_) => {}
            }
        }
        Ok(pending)
    }

    pub(crate) fn functions(&self) -> FunctionsFound {
        let (revision, hash) = match &self.installed {
            Some((revision, hash)) => (*revision, hash.as_str()),
            None => (0, ""),
        };
        let is_newer = revision > sql::FUNCTIONS_REVISION;
        if hash == sql::functions_hash() {
            FunctionsFound::Ready
        } else if is_newer || self.version() > newest() || self.is_too_new() {
            FunctionsFound::Newer
        } else {
            FunctionsFound::Pending
        }
    }
}

/// Checks that this program can work on the schema, and answers its version.
pub(crate) async fn check_migrated(connection: &mut PgConnection) -> Result<i64, PrimaryError> {
    let found = Found::read(connection).await?;
    let (version, needed) = (found.version(), newest());
    if version < needed {
        return Err(PrimaryError::NotMigrated { found: version, needed });
    }
    match (found.required_protocol, found.functions()) {
        (Some(required), _) if required > PROTOCOL => {
            Err(PrimaryError::TooNew { required, spoken: PROTOCOL })
        }
        (None, _) | (_, FunctionsFound::Pending) => Err(PrimaryError::FunctionsPending),
        (Some(_), FunctionsFound::Ready | FunctionsFound::Newer) => Ok(version),
    }
}

/// The newest step of the tables that this program knows.
pub(crate) fn newest() -> i64 {
    sql::TABLES.iter().map(|step| step.version).max().unwrap_or(0)
}

pub(super) fn migrator() -> Migrator {
    let steps = sql::TABLES.iter().map(|step| {
        let text = AssertSqlSafe(step.text).into_sql_str();
        Migration::new(step.version, step.description.into(), MigrationType::Simple, text, false)
    });
    let mut migrator = Migrator::with_migrations(steps.collect());
    migrator.dangerous_set_table_name(sql::STEPS_TABLE);
    migrator.create_schema(sql::SCHEMA);
    // A newer program may have been here: its steps are not ours to judge.
    migrator.set_ignore_missing(true);
    migrator
}
