//! Row commands: plain changes of tables that the owner opened, with no code.

use anyhow::{Context, Result, bail, ensure};
use farwrite_schemas::Outcome;
use serde_json::{Value, json};

use crate::support::{Case, Message};

/// A table that is open but for one column, and one that is not open.
const TABLES: &str = "
    CREATE TABLE app.users (
        id bigint PRIMARY KEY, name text NOT NULL, visits integer NOT NULL DEFAULT 1,
        shout text GENERATED ALWAYS AS (upper(name)) STORED, password text DEFAULT 'none');
    CREATE FUNCTION app.trim_name() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN new.name := trim(new.name); RETURN new; END $$;
    CREATE TRIGGER trim_name BEFORE INSERT OR UPDATE ON app.users
        FOR EACH ROW EXECUTE FUNCTION app.trim_name();
    SELECT farwrite.open_table('app.users',
        insertable => '{id,name,visits}', updatable => '{name,visits}', deletable => true,
        readable => '{id,name,visits,shout}');
    CREATE TABLE app.secrets (id bigint PRIMARY KEY, secret text);
    INSERT INTO app.secrets VALUES (7, 'kept');";

/// A row command with the key that belongs to user 7.
fn of_user_7(command: &str, body: &Value) -> Message {
    Message { body: body.to_string(), ..Message::append("app.users:7", 0) }.named(command)
}

/// Publishes commands one after another and answers how each ended.
async fn ended(case: &Case, messages: &[Message]) -> Result<Vec<Outcome>> {
    for message in messages {
        case.publish(message).await?;
    }
    case.settled().await?;
    let mut outcomes = Vec::new();
    for message in messages {
        outcomes.push(case.outcome(message.id).await?.context("no outcome")?.outcome);
    }
    Ok(outcomes)
}

fn output(outcome: &Outcome) -> Result<Value> {
    let Outcome::Applied { output } = outcome else { bail!("{outcome:?}") };
    Ok(serde_json::from_str(output.get())?)
}

fn code(outcome: &Outcome) -> Result<&str> {
    let Outcome::Rejected(rejection) = outcome else { bail!("{outcome:?}") };
    Ok(&rejection.code)
}

/// User 7 as it is stored: name and visits.
async fn user_7(case: &Case) -> Result<Option<(String, i32)>> {
    Ok(sqlx::query_as("SELECT name, visits FROM app.users WHERE id = 7")
        .fetch_optional(&mut case.primary().await?)
        .await?)
}

#[tokio::test]
async fn row_commands_change_opened_tables_and_answer_the_row_as_stored() -> Result<()> {
    let case = Case::new("rows", &[]).await?;
    case.execute(TABLES).await?;
    let _worker = case.serving_worker().await?;
    let table = "app.users";
    let commands = [
        // A trigger trims the name, and defaults and generated columns are in the output.
        of_user_7("row.insert", &json!({"table": table, "row": {"id": 7, "name": " Ann "}})),
        of_user_7("row.update", &json!({"table": table, "key": {"id": "7"}, "set": {"visits": 2}})),
        of_user_7("row.upsert", &json!({"table": table, "row": {"id": 7, "name": "Bea"}})),
        of_user_7("row.delete", &json!({"table": table, "key": {"id": 7}})),
        of_user_7("row.update", &json!({"table": table, "key": {"id": 7}, "set": {"visits": 3}})),
        of_user_7("row.upsert", &json!({"table": table, "row": {"id": 7, "name": "Cy"}})),
    ];
    let outcomes = ended(&case, &commands).await?;
    let row = |name: &str, visits: i32| json!({"id": 7, "name": name, "visits": visits, "shout": name.to_uppercase()});
    let expected = [
        Some(row("Ann", 1)),
        Some(row("Ann", 2)),
        Some(row("Bea", 2)),
        Some(row("Bea", 2)),
        None,
        Some(row("Cy", 1)),
    ];
    for (outcome, expected) in outcomes.iter().zip(expected) {
        match expected {
            Some(row) => ensure!(output(outcome)? == row, "{outcome:?} is not {row}"),
            None => ensure!(code(outcome)? == "not_found", "{outcome:?}"),
        }
    }
    ensure!(user_7(&case).await? == Some(("Cy".to_owned(), 1)));
    Ok(())
}

#[tokio::test]
async fn what_the_owner_did_not_open_is_not_allowed() -> Result<()> {
    let case = Case::new("closed_rows", &[]).await?;
    case.execute(TABLES).await?;
    let _worker = case.serving_worker().await?;
    let key = json!({"id": 7});
    let mut commands: Vec<Message> = [
        "app.secrets",
        "app.nothing",
        "users",
        "\"app\".\"users\"",
        "app.users; DROP TABLE app.secrets",
        "app.users AS t; DELETE FROM app.secrets; --",
        "farwrite.ledger_derived",
        "pg_catalog.pg_authid",
    ]
    .into_iter()
    .flat_map(|table| {
        [
            of_user_7("row.insert", &json!({"table": table, "row": {"id": 7, "name": "a"}})),
            of_user_7("row.update", &json!({"table": table, "key": key, "set": {"name": "a"}})),
            of_user_7("row.upsert", &json!({"table": table, "row": {"id": 7, "name": "a"}})),
            of_user_7("row.delete", &json!({"table": table, "key": key})),
        ]
    })
    .collect();
    for column in ["password", "shout", "nothing", "name = 'x'; DROP TABLE app.secrets; --", "ctid"]
    {
        let (table, set) = ("app.users", json!({ column: "a" }));
        let row = json!({"id": 7, "name": "a", column: "a"});
        commands.push(of_user_7("row.insert", &json!({"table": table, "row": row})));
        commands.push(of_user_7("row.upsert", &json!({"table": table, "row": row})));
        commands.push(of_user_7("row.update", &json!({"table": table, "key": key, "set": set})));
        // What may be read may be compared with.
        if column != "shout" {
            commands.push(of_user_7("row.delete", &json!({"table": table, "key": key, "if": set})));
        }
    }
    for (command, outcome) in commands.iter().zip(ended(&case, &commands).await?) {
        ensure!(code(&outcome)? == "not_allowed", "{command:?}: {outcome:?}");
    }
    ensure!(case.count("SELECT count(*) FROM app.users").await? == 0);
    ensure!(case.count("SELECT count(*) FROM app.secrets WHERE secret = 'kept'").await? == 1);
    // Nor does a table stay open that was closed.
    case.execute("SELECT farwrite.close_table('app.users')").await?;
    let late =
        of_user_7("row.insert", &json!({"table": "app.users", "row": {"id": 7, "name": "a"}}));
    let outcomes = ended(&case, &[late]).await?;
    ensure!(code(&outcomes[0])? == "not_allowed", "{outcomes:?}");
    Ok(())
}

#[tokio::test]
async fn a_body_that_is_no_row_commands_is_rejected() -> Result<()> {
    let case = Case::new("row_bodies", &[]).await?;
    case.execute(TABLES).await?;
    let _worker = case.serving_worker().await?;
    let bodies = [
        json!([]),
        json!({"key": {"id": 7}, "set": {"name": "a"}}),
        json!({"table": "app.users", "key": 7, "set": {"name": "a"}}),
        json!({"table": "app.users", "key": {"id": 7}, "set": {}}),
        json!({"table": "app.users", "key": {"id": 7}, "set": {"name": "a"}, "where": "true"}),
        json!({"table": "app.users", "key": {}, "set": {"name": "a"}}),
        json!({"table": "app.users", "key": {"id": null}, "set": {"name": "a"}}),
        json!({"table": "app.users", "key": {"id": 7, "name": "a"}, "set": {"name": "a"}}),
    ];
    let commands = bodies.map(|body| of_user_7("row.update", &body));
    for (command, outcome) in commands.iter().zip(ended(&case, &commands).await?) {
        ensure!(code(&outcome)? == "bad_body", "{command:?}: {outcome:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_precondition_that_is_not_met_rejects() -> Result<()> {
    let case = Case::new("row_preconditions", &[]).await?;
    case.execute(TABLES).await?;
    case.execute("INSERT INTO app.users VALUES (7, 'Ann', 1)").await?;
    let _worker = case.serving_worker().await?;
    let update = |set: i32, expected: Value| {
        let body = json!({"table": "app.users", "key": {"id": 7}, "set": {"visits": set}, "if": {"visits": expected}});
        of_user_7("row.update", &body)
    };
    let commands = [
        update(2, json!(1)),
        // A writer that read 1 comes too late.
        update(3, json!(1)),
        update(4, json!("2")),
        update(5, Value::Null),
        of_user_7(
            "row.upsert",
            &json!({"table": "app.users", "row": {"id": 7, "name": "Bea"}, "if": {"name": "Cy"}}),
        ),
        of_user_7(
            "row.delete",
            &json!({"table": "app.users", "key": {"id": 7}, "if": {"visits": 5}}),
        ),
        Message {
            key: Some("app.users:8".to_owned()),
            ..of_user_7(
                "row.upsert",
                &json!({"table": "app.users", "row": {"id": 8, "name": "Dee"}, "if": {"visits": 1}}),
            )
        },
    ];
    let outcomes = ended(&case, &commands).await?;
    for (place, outcome) in outcomes.iter().enumerate() {
        if place == 0 || place == 2 {
            output(outcome)?;
        } else {
            ensure!(code(outcome)? == "precondition", "{place}: {outcome:?}");
        }
    }
    ensure!(user_7(&case).await? == Some(("Ann".to_owned(), 4)));
    ensure!(case.count("SELECT count(*) FROM app.users").await? == 1);
    Ok(())
}

#[tokio::test]
async fn a_row_command_with_another_key_is_rejected() -> Result<()> {
    let case = Case::new("row_keys", &[]).await?;
    case.execute(TABLES).await?;
    case.execute(
        "CREATE TABLE app.notes (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), note text);
         SELECT farwrite.open_table('app.notes', insertable => '{id,note}')",
    )
    .await?;
    let _worker = case.serving_worker().await?;
    let table = "app.users";
    let right = [
        of_user_7("row.insert", &json!({"table": table, "row": {"id": 7, "name": "Ann"}})),
        of_user_7("row.update", &json!({"table": table, "key": {"id": 7}, "set": {"name": "Bea"}})),
        of_user_7("row.upsert", &json!({"table": table, "row": {"id": 7, "name": "Cy"}})),
        of_user_7("row.delete", &json!({"table": table, "key": {"id": 7}})),
    ];
    for key in [None, Some("app.users:8"), Some("app.users:07"), Some("7")] {
        let wrong = right.clone().map(|message| Message {
            id: farwrite_schemas::CommandId::now(),
            key: key.map(str::to_owned),
            ..message
        });
        for outcome in ended(&case, &wrong).await? {
            let Outcome::Rejected(rejection) = outcome else { bail!("{key:?}: {outcome:?}") };
            ensure!(
                rejection.code == "bad_key" && rejection.message.contains("app.users:7"),
                "{key:?}: {rejection:?}"
            );
        }
        ensure!(user_7(&case).await?.is_none());
    }
    for outcome in ended(&case, &right).await? {
        output(&outcome)?;
    }
    // A row whose key the database makes has none before it is stored.
    let note = json!({"table": "app.notes", "row": {"note": "n"}});
    let note = Message { key: None, ..of_user_7("row.insert", &note) };
    let outcomes = ended(&case, &[note]).await?;
    ensure!(output(&outcomes[0])?["note"] == "n", "{outcomes:?}");
    Ok(())
}
