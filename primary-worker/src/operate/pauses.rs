//! Pauses: a command name or a key whose commands are parked until somebody resumes it.

use farwrite_schemas::{CommandName, Key};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::{PgConnection, types::Json};

use super::{
    End, OperateError, chunks,
    dead_letters::or_dash,
    filter::utc,
    print::{self, Printer, age, plain},
};

/// What is paused.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// All commands of a name.
    Name(CommandName),
    /// All commands of a key.
    Key(Key),
}

/// A pause as it is printed.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Pause {
    command: Option<String>,
    key: Option<String>,
    reason: String,
    paused_by: String,
    paused_at: String,
    age_seconds: f64,
}

impl Target {
    /// The parameters of `farwrite.pause` and `farwrite.resume`.
    fn columns(&self) -> (Option<&str>, Option<&str>) {
        match self {
            Self::Name(name) => (Some(name.as_str()), None),
            Self::Key(key) => (None, Some(key.as_str())),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => write!(f, "command {name}"),
            Self::Key(key) => write!(f, "key {}", plain(key.as_str())),
        }
    }
}

pub(super) async fn pause(
    connection: &mut PgConnection,
    target: &Target,
    reason: &str,
    printer: &mut Printer,
) -> Result<End, OperateError> {
    let (name, key) = target.columns();
    let new = chunks::held(connection, async |tx| {
        sqlx::query_scalar::<_, bool>("SELECT farwrite.pause($1, $2, $3)")
            .bind(name)
            .bind(key)
            .bind(reason)
            .fetch_one(tx)
            .await
    })
    .await?;
    let text = if new { "is paused" } else { "was paused already, and its reason stays" };
    let object = json!({ "act": "pause", "command": name, "key": key, "new": new });
    printer.say(&object, &format!("{target} {text}"))?;
    Ok(End::Done)
}

pub(super) async fn resume(
    connection: &mut PgConnection,
    target: &Target,
    printer: &mut Printer,
) -> Result<End, OperateError> {
    let (name, key) = target.columns();
    let found = chunks::held(connection, async |tx| {
        sqlx::query_scalar::<_, bool>("SELECT farwrite.resume($1, $2)")
            .bind(name)
            .bind(key)
            .fetch_one(tx)
            .await
    })
    .await?;
    let text = if found { "is resumed" } else { "was not paused" };
    let object = json!({ "act": "resume", "command": name, "key": key, "found": found });
    printer.say(&object, &format!("{target} {text}"))?;
    Ok(if found { End::Done } else { End::Partly })
}

pub(super) async fn list(
    connection: &mut PgConnection,
    printer: &mut Printer,
) -> Result<End, OperateError> {
    let pauses = read(connection).await?;
    if printer.json {
        for pause in &pauses {
            printer.object(pause)?;
        }
        return Ok(End::Done);
    }
    let rows: Vec<_> = pauses.iter().map(Pause::row).collect();
    printer.text(&print::table(["AGE", "COMMAND", "KEY", "BY", "REASON"], &rows))?;
    Ok(End::Done)
}

/// All pauses, oldest first.
pub(super) async fn read(connection: &mut PgConnection) -> Result<Vec<Pause>, sqlx::Error> {
    let rows: Vec<(Json<Pause>,)> = sqlx::query_as(concat!(
        "SELECT to_json(r) FROM (
             SELECT p.name AS command, p.order_key AS key, p.reason, p.paused_by, ",
        utc!("p.paused_at"),
        " AS paused_at, round(extract(epoch FROM clock_timestamp() - p.paused_at), 3) AS age_seconds
             FROM farwrite.pauses p ORDER BY p.paused_at, p.name, p.order_key) r"
    ))
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|(pause,)| pause.0).collect())
}

impl Pause {
    fn row(&self) -> [String; 5] {
        [
            age(self.age_seconds),
            or_dash(self.command.as_ref()),
            or_dash(self.key.as_ref()),
            self.paused_by.clone(),
            self.reason.clone(),
        ]
    }

    /// What is paused, in a word or two.
    pub(super) fn target(&self) -> String {
        match (&self.command, &self.key) {
            (Some(command), _) => format!("command {}", plain(command)),
            (None, key) => format!("key {}", plain(key.as_deref().unwrap_or_default())),
        }
    }

    /// Why, by whom and since when.
    pub(super) fn why(&self) -> String {
        let Self { reason, paused_by, age_seconds, .. } = self;
        format!("{} (by {}, {} ago)", plain(reason), plain(paused_by), age(*age_seconds))
    }
}
