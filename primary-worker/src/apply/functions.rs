//! What is known of the functions that the database has registered as commands.
//!
//! The registry's truth is `farwrite.functions`; this is one lane's copy. A command that it does
//! not know makes it read the registry again before it says so, so that a function that was
//! registered a moment ago is found.

use farwrite_schemas::CommandName;
use sqlx::PgConnection;

use super::{
    by_name::ByName,
    json_schema::{BodyCheck, JsonSchema},
};

/// A registered function.
#[derive(Clone, Debug)]
pub(crate) struct Function {
    /// What `farwrite.call` knows it by.
    pub(crate) number: i32,
    /// Whether it wants a transaction of its own.
    pub(crate) alone: bool,
    /// What its bodies are checked with.
    pub(crate) schema: Option<JsonSchema>,
}

impl Function {
    /// Checks a body before anything runs.
    pub(crate) fn check(&self, body: &[u8]) -> BodyCheck {
        self.schema.as_ref().map_or(BodyCheck::Fits, |schema| schema.check(body))
    }
}

/// The registered functions, by command name and version.
#[derive(Default)]
pub(crate) struct Functions {
    by_name: ByName<Function>,
    /// How often the registry had changed when it was seen last.
    changes: i64,
}

impl Functions {
    /// The function of a command, if one is known.
    pub(crate) fn get(&self, name: &CommandName, version: u32) -> Option<&Function> {
        self.by_name.get(name, version)
    }

    /// Forgets everything when the registry has changed since.
    pub(crate) fn expect(&mut self, changes: i64) {
        if self.changes != changes {
            self.forget();
            self.changes = changes;
        }
    }

    /// Forgets everything: the next command reads the registry.
    pub(crate) fn forget(&mut self) {
        self.by_name.clear();
    }

    /// Reads the registry.
    pub(crate) async fn refresh(
        &mut self,
        connection: &mut PgConnection,
    ) -> Result<(), sqlx::Error> {
        type FunctionRow = (String, i32, i32, bool, Option<String>);
        let rows: Vec<FunctionRow> = sqlx::query_as(
            "SELECT name, version, function_id, alone, json_schema::text FROM farwrite.functions",
        )
        .fetch_all(connection)
        .await?;
        self.by_name.clear();
        for (name, version, number, alone, schema) in rows {
            let Ok(name) = CommandName::new(name) else { continue };
            let schema = schema.map(|schema| JsonSchema::new(&schema));
            let function = Function { number, alone, schema };
            self.by_name.insert(name, version.unsigned_abs(), function);
        }
        Ok(())
    }
}
