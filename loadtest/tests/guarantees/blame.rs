//! Whose fault a failure is, where its code alone does not say so.

use anyhow::{Result, ensure};

use crate::support::{Case, Message};

/// A command of `name` with a text.
fn with(name: &str, key: &str, text: &str) -> Message {
    let body = serde_json::json!({ "n": 0, "text": text }).to_string();
    Message { body, ..Message::append(key, 0) }.named(name)
}

/// Registers a function that runs a statement on the command's text, `$1`.
async fn register(case: &Case, name: &str, statement: &str, options: &str) -> Result<()> {
    case.execute(&format!(
        "CREATE FUNCTION app.{name}(body jsonb, meta farwrite.meta) RETURNS void LANGUAGE plpgsql {options} AS $$
         BEGIN EXECUTE $q$ {statement} $q$ USING body->>'text'; PERFORM app.append(body, meta); END $$;
         SELECT farwrite.register('app.{name}', 'app.{name}(jsonb, farwrite.meta)')"
    ))
    .await
}

#[tokio::test]
async fn data_that_no_type_table_or_policy_takes_is_rejected_at_once_whatever_its_code()
-> Result<()> {
    let case = Case::new("data", &[]).await?;
    let role = format!("{}_owner", case.name);
    case.execute(&format!(
        "CREATE TABLE app.guarded (text text); ALTER TABLE app.guarded ENABLE ROW LEVEL SECURITY;
         CREATE POLICY short ON app.guarded USING (true) WITH CHECK (length(text) < 10);
         CREATE TABLE app.indexed (text text); CREATE INDEX ON app.indexed (text);
         CREATE ROLE {role};
         GRANT USAGE ON SCHEMA app, farwrite TO {role};
         GRANT ALL ON ALL TABLES IN SCHEMA app TO {role}"
    ))
    .await?;
    for (name, statement) in [
        ("query", "SELECT $1::tsquery"),
        ("path", "SELECT $1::jsonpath"),
        (
            "words",
            "SELECT to_tsvector('simple', string_agg(n::text, ' ')) FROM generate_series(1, 300000) n",
        ),
        ("nested", "SELECT repeat('[', 400000)::jsonb"),
        (
            "indexed",
            "INSERT INTO app.indexed SELECT string_agg(md5(n::text), '') FROM generate_series(1, 2000) n",
        ),
        ("guarded", "INSERT INTO app.guarded VALUES ($1)"),
    ] {
        register(&case, name, statement, "").await?;
    }
    // A superuser passes every policy.
    case.execute(&format!(
        "ALTER FUNCTION app.guarded(jsonb, farwrite.meta) OWNER TO {role};
         ALTER FUNCTION app.guarded(jsonb, farwrite.meta) SECURITY DEFINER"
    ))
    .await?;
    let commands = [
        (with("app.query", "a", "a & & b"), "42601"),
        (with("app.path", "b", "$["), "42601"),
        (with("app.words", "c", ""), "54000"),
        (with("app.nested", "d", ""), "54001"),
        (with("app.indexed", "e", ""), "54000"),
        (with("app.guarded", "f", "much too long"), "42501"),
    ];
    // Each with another one of its key behind it, and all of them in one batch at first.
    for (command, _) in &commands {
        case.publish(command).await?;
        let key = command.key.as_deref().unwrap_or("");
        case.publish(&Message::append(key, 1)).await?;
    }
    let _worker = case.serving(&["--lanes", "1"]).await?;
    for (command, code) in &commands {
        let ended = case.ended(command.id).await?;
        ensure!(ended == ("rejected".to_owned(), (*code).to_owned()), "{command:?}: {ended:?}");
    }
    case.settled().await?;
    let effects = case.effects().await?;
    ensure!(effects.len() == 6 && effects.values().all(|effects| effects == &[1]), "{effects:?}");
    ensure!(case.count("SELECT count(*) FROM farwrite.parked").await? == 0);
    case.execute(&format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}")).await
}

#[tokio::test]
async fn what_a_deploy_can_mend_waits_for_it() -> Result<()> {
    let case = Case::new("deploys", &[]).await?;
    case.execute(
        "CREATE TABLE app.days (text text) PARTITION BY LIST (text);
         CREATE TABLE app.checked (text text CONSTRAINT short CHECK (length(text) < 10));
         CREATE SEQUENCE app.numbers MAXVALUE 2; SELECT nextval('app.numbers'), nextval('app.numbers')",
    )
    .await?;
    register(&case, "day", "INSERT INTO app.days VALUES ($1)", "").await?;
    register(&case, "number", "SELECT nextval('app.numbers'), $1", "").await?;
    register(&case, "checked", "INSERT INTO app.checked VALUES ($1)", "").await?;
    let _worker = case.serving(&["--lanes", "1", "--unknown-keep-s", "3600"]).await?;
    let (day, number) = (with("app.day", "a", "monday"), with("app.number", "b", ""));
    let checked = with("app.checked", "c", "much too long");
    for command in [&day, &number, &checked] {
        case.publish(command).await?;
    }
    case.parked("not_ready", 2).await?;
    ensure!(case.ended(checked.id).await?.0 == "rejected", "a check with a name is the command's");
    case.execute(
        "CREATE TABLE app.monday PARTITION OF app.days FOR VALUES IN ('monday');
         ALTER SEQUENCE app.numbers MAXVALUE 100",
    )
    .await?;
    for command in [&day, &number] {
        ensure!(case.ended(command.id).await?.0 == "applied");
    }
    Ok(())
}

#[tokio::test]
async fn a_changed_type_of_a_column_parks_nothing() -> Result<()> {
    let case = Case::new("retyped", &[]).await?;
    case.execute(
        "CREATE TABLE app.kinds (id integer, kind integer); INSERT INTO app.kinds VALUES (1, 7);
         CREATE FUNCTION app.kind(body jsonb, meta farwrite.meta) RETURNS void LANGUAGE plpgsql AS $$
         DECLARE r app.kinds; v text;
         BEGIN
             SELECT * INTO r FROM app.kinds WHERE id = 1;
             v := r.kind || 'x';
             PERFORM app.append(body, meta);
         END $$;
         SELECT farwrite.register('app.kind', 'app.kind(jsonb, farwrite.meta)')",
    )
    .await?;
    let worker = case.serving(&["--lanes", "1"]).await?;
    for (n, change) in ["text", "bigint USING kind::bigint", "numeric"].into_iter().enumerate() {
        let before = with("app.kind", "a", "");
        case.publish(&before).await?;
        ensure!(case.ended(before.id).await?.0 == "applied");
        case.execute(&format!("ALTER TABLE app.kinds ALTER COLUMN kind TYPE {change}")).await?;
        for command in [with("app.kind", "a", ""), with("app.kind", "b", "")] {
            case.publish(&command).await?;
            ensure!(case.ended(command.id).await?.0 == "applied", "{n}\n{}", worker.log_tail());
        }
    }
    ensure!(!worker.log().contains("parked"), "{}", worker.log());
    Ok(())
}

#[tokio::test]
async fn what_a_function_says_beside_its_outcome_is_not_in_the_workers_log() -> Result<()> {
    let case = Case::new("notices", &[]).await?;
    case.execute(
        "CREATE FUNCTION app.chatter(body jsonb, meta farwrite.meta) RETURNS void LANGUAGE plpgsql AS $$
         BEGIN
             FOR n IN 1 .. 100 LOOP RAISE WARNING 'secret of %', body->>'text'; END LOOP;
         END $$;
         SELECT farwrite.register('app.chatter', 'app.chatter(jsonb, farwrite.meta)')",
    )
    .await?;
    let worker = case.serving_worker().await?;
    let chatter = with("app.chatter", "a", "alice");
    case.publish(&chatter).await?;
    ensure!(case.ended(chatter.id).await?.0 == "applied");
    ensure!(!worker.log().contains("alice"), "{}", worker.log_tail());
    Ok(())
}
