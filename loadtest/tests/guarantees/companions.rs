//! Commands that share a batch: nothing of one meets another; and the ways to define one.

use anyhow::{Context, Result, ensure};
use farwrite_schemas::headers;
use serde_json::json;

use crate::support::{Case, DEADLINE, Message};

/// Publishes messages before the worker starts, so that they come in one batch.
async fn in_one_batch(case: &Case, flags: &[&str], messages: &[Message]) -> Result<()> {
    for message in messages {
        case.publish(message).await?;
    }
    let worker = case.serving(&[flags, &["--lanes", "1"]].concat()).await?;
    case.settled().await?;
    // After an unclean end the next one would be careful.
    ensure!(worker.terminate(DEADLINE).await?.success(), "{}", worker.log_tail());
    Ok(())
}

/// Registers a function of the body's `n` as `app.<name>`.
fn function(name: &str, body: &str) -> String {
    format!(
        "CREATE FUNCTION app.{name}(body jsonb, meta farwrite.meta) RETURNS jsonb LANGUAGE plpgsql AS $$ {body} $$;
         SELECT farwrite.register('app.{name}', 'app.{name}(jsonb, farwrite.meta)');"
    )
}

#[tokio::test]
async fn settings_role_and_locks_of_a_command_do_not_meet_the_next() -> Result<()> {
    let case = Case::new("settings", &[]).await?;
    let sql = [
        "CREATE TABLE app.seen (n integer, path text, who text, custom text, sync text, locks bigint);
         CREATE ROLE farwrite_test_other SUPERUSER;".to_owned(),
        function("leave", "BEGIN
            SET LOCAL search_path = app, pg_temp;
            PERFORM set_config('app.tenant', 'acme', false);
            PERFORM set_config('synchronous_commit', 'off', false);
            PERFORM pg_advisory_lock(4711);
            RETURN '1'; END"),
        // One that may do everything: any other would fail its companions, and so be found out.
        function("leave_role", "BEGIN
            SET LOCAL ROLE farwrite_test_other;
            RETURN '1'; END"),
        function("look", "BEGIN
            INSERT INTO app.seen VALUES ((body->>'n')::integer, current_setting('search_path'), current_user::text,
                current_setting('app.tenant', true), current_setting('synchronous_commit'),
                (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()));
            RETURN '1'; END"),
    ];
    case.execute(&sql.concat()).await?;
    let messages: Vec<Message> = ["look", "leave", "look", "leave_role", "look", "leave"]
        .iter()
        .zip(1..)
        .map(|(name, n)| Message::append("a", n).named(&format!("app.{name}")))
        .collect();
    in_one_batch(&case, &[], &messages).await?;
    // The next command is another transaction of the same session.
    let _worker = case.serving(&["--lanes", "1"]).await?;
    for (name, n) in [("leave", 7), ("leave_role", 8), ("look", 9)] {
        case.publish(&Message::append("a", n).named(&format!("app.{name}"))).await?;
        case.settled().await?;
    }
    let sql = "SELECT count(*) FROM (SELECT DISTINCT path, who, coalesce(custom, ''), sync FROM app.seen) s";
    let distinct = case.count(sql).await?;
    case.execute("DROP OWNED BY farwrite_test_other; DROP ROLE farwrite_test_other").await?;
    ensure!(distinct == 1, "{distinct} different views of the session");
    ensure!(case.count("SELECT count(*) FROM app.seen").await? == 4);
    // Within a batch a session's own lock is no obstacle; after it, it is gone.
    ensure!(case.count("SELECT locks FROM app.seen WHERE n = 9").await? == 0);
    Ok(())
}

#[tokio::test]
async fn a_function_answers_the_same_in_a_batch_and_alone_whatever_it_returns_and_is_called()
-> Result<()> {
    let case = Case::new("outputs", &[]).await?;
    let functions = [
        ("jsonb, farwrite.meta", "jsonb", "SELECT jsonb_build_object('n', $1->'n', 'key', $2.key)"),
        ("jsonb, farwrite.meta", "void", "SELECT set_config('app.key', $2.key, true)"),
        ("jsonb", "void", "SELECT 1 / 1"),
        ("jsonb", "text", "SELECT 'a \"b\" ' || ($1->>'n')"),
        ("jsonb", "json", "SELECT '{\"a\" : 1}'::json"),
        ("jsonb", "bigint", "SELECT 1::bigint << 40"),
        ("jsonb", "boolean[]", "SELECT ARRAY[true, NULL]"),
        ("jsonb", "integer", "SELECT NULL::integer"),
    ];
    let mut sql = String::new();
    for (number, (takes, returns, body)) in functions.iter().enumerate() {
        let name = format!("app.\"50 %s of {number}\"");
        sql.push_str(&format!(
            "CREATE FUNCTION {name}({takes}) RETURNS {returns} LANGUAGE sql AS $$ {body} $$;
             SELECT farwrite.register('app.f{number}', '{name}({takes})');"
        ));
    }
    case.execute(&sql).await?;
    let expected = [
        Some(r#"{"n": 7, "key": "a"}"#),
        None,
        None,
        Some(r#""a \"b\" 7""#),
        Some(r#"{"a" : 1}"#),
        Some("1099511627776"),
        Some("[true,null]"),
        None,
    ];
    let command = |number: usize| Message::append("a", 7).named(&format!("app.f{number}"));
    let messages: Vec<Message> = (0..functions.len()).map(command).collect();
    in_one_batch(&case, &[], &messages).await?;
    let worker = case.serving(&["--lanes", "1"]).await?;
    for number in 0..functions.len() {
        case.publish(&command(number)).await?;
        case.settled().await?;
    }
    ensure!(worker.terminate(DEADLINE).await?.success(), "{}", worker.log_tail());
    // The last one has the batch run in subtransactions, of which the first holds these eight.
    let mut messages: Vec<Message> = (0..functions.len()).map(command).collect();
    messages.push(Message::refused("a", 7));
    in_one_batch(&case, &[], &messages).await?;
    let answers: Vec<(String, Option<String>)> =
        sqlx::query_as("SELECT outcome::text, answer::text FROM farwrite.ledger WHERE outcome <> 'rejected' ORDER BY sequence")
            .fetch_all(&mut case.primary().await?)
            .await?;
    let thrice = expected.iter().chain(&expected).chain(&expected);
    let thrice = thrice.map(|answer| ("applied".to_owned(), answer.map(ToOwned::to_owned)));
    ensure!(answers == thrice.collect::<Vec<_>>(), "{answers:?}");
    ensure!(
        case.count("SELECT count(*) FROM farwrite.ledger WHERE outcome = 'rejected'").await? == 1
    );
    Ok(())
}

#[tokio::test]
async fn what_a_command_deferred_is_its_own_affair_and_not_its_companions() -> Result<()> {
    let case = Case::new("deferrals", &[]).await?;
    let sql = [
        "CREATE TABLE app.parent (n integer PRIMARY KEY);
         CREATE TABLE app.child (n integer CONSTRAINT has_parent REFERENCES app.parent DEFERRABLE INITIALLY DEFERRED);".to_owned(),
        function("child", "BEGIN INSERT INTO app.child VALUES ((body->>'n')::integer); RETURN '1'; END"),
        function("parent", "BEGIN INSERT INTO app.parent VALUES ((body->>'n')::integer); RETURN '1'; END"),
        function("family", "BEGIN INSERT INTO app.child VALUES ((body->>'n')::integer);
            INSERT INTO app.parent VALUES ((body->>'n')::integer); RETURN '1'; END"),
    ];
    case.execute(&sql.concat()).await?;
    let message = |name: &str, n| Message::append("a", n).named(&format!("app.{name}"));
    // The first has no parent when its turn is over, though its companion brings one. The third
    // and the fifth defer and are right by themselves.
    let messages = [
        message("child", 1),
        message("parent", 1),
        message("family", 2),
        message("child", 1),
        message("family", 3),
        message("child", 9),
    ];
    // The last one, which nobody brings a parent, would fail any batch: it comes by itself.
    in_one_batch(&case, &[], &messages[..5]).await?;
    in_one_batch(&case, &[], &messages[5..]).await?;
    let mut words = Vec::new();
    for message in &messages {
        words.push(case.ended(message.id).await?);
    }
    let (applied, rejected) = (("applied", ""), ("rejected", "23503"));
    let expected = [rejected, applied, applied, applied, applied, rejected];
    let expected = expected.map(|(word, code)| (word.to_owned(), code.to_owned()));
    ensure!(words == expected, "{words:?}");
    Ok(())
}

#[tokio::test]
async fn what_a_deferred_trigger_refuses_in_its_own_words_is_judged_alone() -> Result<()> {
    let case = Case::new("deferred_words", &[]).await?;
    let sql = [
        "CREATE TABLE app.entries (n integer, amount integer);
         CREATE FUNCTION app.balances() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF (SELECT sum(e.amount) FROM app.entries e WHERE e.n = NEW.n) <> 0 THEN
                 RAISE EXCEPTION 'it does not balance' USING ERRCODE = 'KO001';
             END IF;
             RETURN NULL;
         END $$;
         CREATE CONSTRAINT TRIGGER balances AFTER INSERT ON app.entries DEFERRABLE INITIALLY DEFERRED
         FOR EACH ROW EXECUTE FUNCTION app.balances();".to_owned(),
        function("transfer", "BEGIN INSERT INTO app.entries VALUES ((body->>'n')::integer, 1);
            INSERT INTO app.entries VALUES ((body->>'n')::integer, -1); RETURN '1'; END"),
        function("lose", "BEGIN INSERT INTO app.entries VALUES ((body->>'n')::integer, 1); RETURN '1'; END"),
    ];
    case.execute(&sql.concat()).await?;
    let message = |name: &str, n| Message::append("a", n).named(&format!("app.{name}"));
    let messages = [message("transfer", 1), message("lose", 2), message("transfer", 3)];
    in_one_batch(&case, &[], &messages).await?;
    let mut words = Vec::new();
    for message in &messages {
        words.push(case.ended(message.id).await?);
    }
    let expected = [("applied", ""), ("rejected", "KO001"), ("applied", "")];
    let expected = expected.map(|(word, code)| (word.to_owned(), code.to_owned()));
    ensure!(words == expected, "{words:?}");
    Ok(())
}

#[tokio::test]
async fn what_a_command_defers_until_the_commit_is_decided_by_the_commit() -> Result<()> {
    let case = Case::new("until_commit", &[]).await?;
    let sql = [
        // Once something deferred is checked, what its trigger defers is checked at once. Only a
        // commit, which runs the trigger too, waits for the parent.
        "CREATE TABLE app.orders (n integer);
         CREATE TABLE app.parent (n integer PRIMARY KEY);
         CREATE TABLE app.child (n integer REFERENCES app.parent DEFERRABLE INITIALLY DEFERRED);
         CREATE FUNCTION app.follow() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             INSERT INTO app.child VALUES (NEW.n);
             INSERT INTO app.parent VALUES (NEW.n);
             RETURN NULL;
         END $$;
         CREATE CONSTRAINT TRIGGER follow AFTER INSERT ON app.orders DEFERRABLE INITIALLY DEFERRED
         FOR EACH ROW EXECUTE FUNCTION app.follow();"
            .to_owned(),
        function(
            "order",
            "BEGIN INSERT INTO app.orders VALUES ((body->>'n')::integer); RETURN '1'; END",
        ),
    ];
    case.execute(&sql.concat()).await?;
    let order = |n| Message::append("a", n).named("app.order");
    let messages = [order(1), order(2), order(3)];
    in_one_batch(&case, &[], &messages[..1]).await?;
    in_one_batch(&case, &[], &messages[1..]).await?;
    for message in &messages {
        let ended = case.ended(message.id).await?;
        ensure!(ended.0 == "applied", "{ended:?}");
    }
    ensure!(case.count("SELECT count(*) FROM app.child JOIN app.parent USING (n)").await? == 3);
    Ok(())
}

#[tokio::test]
async fn a_body_that_does_not_fit_its_schema_is_rejected_before_anything_runs() -> Result<()> {
    let case = Case::new("schema", &[]).await?;
    let schema =
        json!({"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}});
    let sql = format!(
        "SELECT farwrite.register('app.checked', 'app.append(jsonb, farwrite.meta)', json_schema => '{schema}')"
    );
    case.execute(&sql).await?;
    let fits = Message::append("a", 1).named("app.checked");
    let refused = Message { body: "{\"n\": \"one\"}".to_owned(), ..Message::append("a", 2) }
        .named("app.checked");
    in_one_batch(&case, &[], &[fits.clone(), refused.clone()]).await?;
    ensure!(case.ended(fits.id).await?.0 == "applied");
    ensure!(case.ended(refused.id).await? == ("rejected".to_owned(), "bad_body".to_owned()));
    // Registered anew, it is checked by the new one.
    let _worker = case.serving(&[]).await?;
    case.publish(&Message::append("a", 3).named("app.checked")).await?;
    case.settled().await?;
    case.execute(&sql.replace("integer", "string")).await?;
    case.until("the new schema is seen", async || {
        let message = Message::append("a", 4).named("app.checked");
        case.publish(&message).await?;
        Ok(case.ended(message.id).await?.1 == "bad_body")
    })
    .await
}

#[tokio::test]
async fn a_context_reaches_row_level_security_and_only_what_is_allowed() -> Result<()> {
    let case = Case::new("context", &[]).await?;
    let sql = function(
        "whose",
        "BEGIN RETURN to_jsonb(coalesce(nullif(current_setting('farwrite.context', true), '')::jsonb->>'tenant', 'nobody')); END",
    );
    case.execute(&sql).await?;
    let with = |context: Option<&str>| {
        let mut message = Message::append("a", 1).named("app.whose");
        message.headers.extend(context.map(|context| (headers::CONTEXT, context.to_owned())));
        message
    };
    let messages = [
        with(None),
        with(Some("{\"tenant\":\"acme\"}")),
        with(None),
        with(Some("{\"role\":\"admin\"}")),
        with(Some("{\"tenant\":\"umbrella\"}")),
    ];
    in_one_batch(&case, &["--context-allow", "tenant, user"], &messages).await?;
    let mut answers = Vec::new();
    for message in &messages {
        let answer: String =
            sqlx::query_scalar("SELECT coalesce(answer->>'code', answer #>> '{}') FROM (SELECT CASE WHEN status = 'applied' THEN to_jsonb(answer) ELSE answer::jsonb END AS answer FROM farwrite.outcome_of($1)) o")
                .bind(message.id.uuid())
                .fetch_optional(&mut case.primary().await?)
                .await?
                .context("no outcome")?;
        answers.push(answer);
    }
    ensure!(
        answers == ["nobody", "acme", "nobody", "context_not_allowed", "umbrella"],
        "{answers:?}"
    );
    Ok(())
}

#[tokio::test]
async fn what_is_undone_with_a_refused_companion_is_done_again_as_it_was() -> Result<()> {
    const FUNCTIONS: i32 = 23;
    let case = Case::new("undone", &[]).await?;
    let mut sql = "CREATE TABLE app.done (place serial, n integer, tenant text, left_behind text);"
        .to_owned();
    for number in 0..FUNCTIONS {
        sql.push_str(&function(
            &format!("f{number}"),
            &format!(
                "BEGIN
                    INSERT INTO app.done (n, tenant, left_behind)
                    VALUES ((body->>'n')::integer, nullif(current_setting('farwrite.context', true), '')::jsonb->>'tenant',
                        nullif(current_setting('app.left', true), ''));
                    PERFORM set_config('app.left', body->>'n', true);
                    IF body ? 'refuse' THEN
                        PERFORM farwrite.reject('unwanted', 'this one is not wanted');
                    END IF;
                    RETURN to_jsonb({number}); END"
            ),
        ));
    }
    case.execute(&sql).await?;
    // One of each function; the first batch guarded and with contexts, the second with nothing to look at.
    let refused = [5, 6, 12, 22];
    let expired = 10;
    let messages: Vec<Message> = (0..2 * FUNCTIONS)
        .map(|n| {
            let name = format!("app.f{}", n % FUNCTIONS);
            let mut message = Message::append("a", n).named(&name);
            if n < FUNCTIONS {
                let context = format!("{{\"tenant\":\"{n}\"}}");
                message.headers.push((headers::CONTEXT, context));
            }
            if n == expired {
                message.headers.push((headers::EXPIRES_AT, "1000".to_owned()));
            }
            if refused.contains(&n) {
                message.body = format!("{{\"n\":{n},\"refuse\":true}}");
            }
            message
        })
        .collect();
    let (first, second) = messages.split_at(FUNCTIONS.unsigned_abs() as usize);
    in_one_batch(&case, &["--context-allow", "tenant"], first).await?;
    in_one_batch(&case, &[], second).await?;

    let done: Vec<(i32, Option<String>)> =
        sqlx::query_as("SELECT n, tenant FROM app.done ORDER BY place")
            .fetch_all(&mut case.primary().await?)
            .await?;
    let expected = (0..2 * FUNCTIONS)
        .filter(|n| !refused.contains(n) && *n != expired)
        .map(|n| (n, (n < FUNCTIONS).then(|| n.to_string())));
    ensure!(done == expected.collect::<Vec<_>>(), "{done:?}");
    ensure!(case.count("SELECT count(left_behind) FROM app.done").await? == 0);
    let ends: Vec<(String, Option<String>)> = sqlx::query_as(
        "SELECT outcome::text, coalesce(answer->>'code', answer #>> '{}') FROM farwrite.ledger ORDER BY sequence",
    )
    .fetch_all(&mut case.primary().await?)
    .await?;
    let expected = (0..2 * FUNCTIONS).map(|n| match n {
        n if refused.contains(&n) => ("rejected".to_owned(), Some("unwanted".to_owned())),
        n if n == expired => ("expired".to_owned(), None),
        n => ("applied".to_owned(), Some((n % FUNCTIONS).to_string())),
    });
    ensure!(ends == expected.collect::<Vec<_>>(), "{ends:?}");
    Ok(())
}

#[tokio::test]
async fn a_function_refuses_with_a_code_of_its_own() -> Result<()> {
    let case = Case::new("own_code", &[]).await?;
    let sql = [
        function(
            "sold_out",
            "BEGIN PERFORM farwrite.reject('sold_out', 'nothing is left'); RETURN '1'; END",
        ),
        function("own_state", "BEGIN RAISE EXCEPTION 'no' USING ERRCODE = 'SHOP1'; END"),
        function("forged", "BEGIN RAISE EXCEPTION 'no' USING ERRCODE = 'FW001'; END"),
    ];
    case.execute(&sql.concat()).await?;
    let message = |name: &str, n| Message::append("a", n).named(&format!("app.{name}"));
    let messages = [
        message("sold_out", 1),
        message("own_state", 2),
        message("forged", 3),
        Message::append("a", 4),
    ];
    // Among companions, and alone.
    let worker = case.serving(&["--lanes", "1"]).await?;
    worker.suspend()?;
    for message in &messages {
        case.publish(message).await?;
    }
    worker.resume()?;
    case.settled().await?;
    let alone = message("sold_out", 5);
    case.publish(&alone).await?;
    let mut ended = Vec::new();
    for message in messages.iter().chain([&alone]) {
        ended.push(case.ended(message.id).await?);
    }
    let expected = [
        ("rejected", "sold_out"),
        ("rejected", "SHOP1"),
        ("dead_lettered", "cannot_apply"),
        ("applied", ""),
        ("rejected", "sold_out"),
    ];
    let expected = expected.map(|(word, code)| (word.to_owned(), code.to_owned()));
    ensure!(ended == expected, "{ended:?}");
    ensure!(worker.status()?.is_none(), "an app's own FW001 stopped the worker");
    Ok(())
}
