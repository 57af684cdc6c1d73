//! Random commands over few keys, with random faults, rejections, retries, schedules, pauses and
//! worker kills. Once all has settled, every accepted id has exactly one outcome. Each key's
//! applied commands are in the stream's order, and the effects are a model's.
//!
//! The seed is printed; `FARWRITE_SEED=n` replays its commands and faults.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use farwrite_schemas::{
    ATOMIC_NAME, CommandId,
    headers::{EXPIRES_AT, NOT_BEFORE},
};
use fastrand::Rng;
use serde_json::json;
use uuid::Uuid;

use crate::support::{Case, DEADLINE, Message};

const COMMANDS: i32 = 400;
const KEYS: usize = 4;
const FLAGS: [&str; 4] = ["--retry-pause-ms", "5", "--attempts-max", "1000"];

/// `app.flaky` fails by chance and `app.patient` asks for later, by what a sequence says: it does not
/// roll back, so another attempt may be lucky. Of three attempts two are: each failure doubles the pause, and fifteen in
/// a row would be a minute.
const APP: &str = "
    CREATE SEQUENCE app.chance;
    CREATE FUNCTION app.flaky(body jsonb, meta farwrite.meta) RETURNS jsonb LANGUAGE plpgsql AS $$
    BEGIN
        IF hashint8(nextval('app.chance')) % 3 = 0 THEN
            RAISE EXCEPTION 'by chance' USING ERRCODE = '40001';
        END IF;
        RETURN app.append(body, meta);
    END $$;
    SELECT farwrite.register('app.flaky', 'app.flaky(jsonb, farwrite.meta)');
    CREATE FUNCTION app.patient(body jsonb, meta farwrite.meta) RETURNS jsonb LANGUAGE plpgsql AS $$
    BEGIN
        IF hashint8(nextval('app.chance')) % 2 = 0 THEN
            PERFORM farwrite.try_later('10 ms');
        END IF;
        RETURN app.append(body, meta);
    END $$;
    SELECT farwrite.register('app.patient', 'app.patient(jsonb, farwrite.meta)');";

/// What a command must come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Applied,
    Rejected,
    Expired,
    /// Its time was short: either is right.
    AppliedOrExpired,
}

/// A command that was accepted.
#[derive(Debug)]
struct Accepted {
    key: String,
    /// Its place in the stream, and in its message.
    place: (u64, usize),
    expected: Expected,
    /// It enters its key's order when it is due.
    scheduled: bool,
}

/// The next command: its message, and what is expected of each id in it.
fn next(random: &mut Rng, n: i32) -> (Message, Vec<(CommandId, Expected)>, bool) {
    let key = format!("key {}", random.usize(..KEYS));
    let plain = Message::append(&key, n);
    let one = |message: Message, expected| {
        let id = message.id;
        (message, vec![(id, expected)], false)
    };
    match random.u32(..100) {
        0..10 => one(Message::refused(&key, n), Expected::Rejected),
        10..18 => one(plain.named("app.flaky"), Expected::Applied),
        18..24 => one(plain.named("app.patient"), Expected::Applied),
        24..28 => one(plain.named("app.deployed_later"), Expected::Applied),
        28..32 => one(plain.at(EXPIRES_AT, -1), Expected::Expired),
        32..38 => one(plain.at(EXPIRES_AT, random.i64(1..2_000)), Expected::AppliedOrExpired),
        38..44 => {
            let (message, ids, _) =
                one(plain.at(NOT_BEFORE, random.i64(1..3_000)), Expected::Applied);
            (message, ids, true)
        }
        44..50 => {
            let refused = random.bool();
            let mut ids = vec![(plain.id, Expected::Applied)];
            let commands: Vec<_> = (0..random.usize(1..5))
                .map(|_| {
                    let id = CommandId::now();
                    ids.push((id, Expected::Applied));
                    json!({"id": id, "name": "app.append", "body": {"n": n}})
                })
                .collect();
            let mut body = json!({ "commands": commands });
            if refused {
                body["commands"][0]["body"]["refuse"] = json!("by test");
                ids.iter_mut().for_each(|(_, expected)| *expected = Expected::Rejected);
            }
            (Message { body: body.to_string(), ..plain }.named(ATOMIC_NAME), ids, false)
        }
        _ => one(plain, Expected::Applied),
    }
}

/// Publishes everything, some of it twice, and tells the model.
async fn publish(case: &Case, mut random: Rng) -> Result<HashMap<Uuid, Accepted>> {
    let mut model = HashMap::new();
    for n in 0..COMMANDS {
        let (message, ids, scheduled) = next(&mut random, n);
        let sequence = case.publish(&message).await?.sequence;
        let is_batch = message.name == ATOMIC_NAME;
        for (member, (id, expected)) in ids.into_iter().enumerate() {
            // A batch has no effect of its own.
            let key = if is_batch && member == 0 {
                String::new()
            } else {
                message.key.clone().unwrap_or_default()
            };
            let place = (sequence, member);
            model.insert(id.uuid(), Accepted { key, place, expected, scheduled });
        }
        if random.u32(..10) == 0 {
            case.publish(&message).await?;
        }
        if random.u32(..20) == 0 {
            tokio::time::sleep(Duration::from_millis(random.u64(..120))).await;
        }
    }
    Ok(model)
}

/// Kills the worker, or stops it in order, again and again; each has another number of lanes.
/// Meanwhile keys are paused and resumed, and a deploy brings the last function.
async fn disturb(case: &Case, mut random: Rng) -> Result<()> {
    for round in 0..10 {
        let lanes = random.u32(1..6).to_string();
        let batch = random.u32(1..64).to_string();
        let more = ["--lanes", &lanes, "--batch-max-commands", &batch];
        let worker = case.spawn(
            "run",
            &[&FLAGS[..], &more].concat(),
            &[("FARWRITE_UNKNOWN_KEEP_S", "3600")],
        )?;
        tokio::time::sleep(Duration::from_millis(random.u64(50..700))).await;
        let key = random.usize(..KEYS);
        case.execute(&format!("SELECT farwrite.pause(NULL, 'key {key}', 'by test')")).await?;
        tokio::time::sleep(Duration::from_millis(random.u64(..300))).await;
        if round == 6 {
            let sql = "SELECT farwrite.register('app.deployed_later', 'app.append(jsonb, farwrite.meta)')";
            case.execute(sql).await?;
        }
        if random.bool() {
            worker.kill().await?;
        } else {
            worker.terminate(DEADLINE).await?;
        }
        case.execute(&format!("SELECT farwrite.resume(NULL, 'key {key}')")).await?;
    }
    Ok(())
}

/// Compares every outcome and every effect with the model.
async fn check(case: &Case, model: &HashMap<Uuid, Accepted>) -> Result<()> {
    let mut connection = case.primary().await?;
    let outcomes: Vec<(Uuid, String)> = sqlx::query_as(
        "SELECT command_id, outcome::text FROM farwrite.ledger
         UNION ALL SELECT command_id, 'dead letter: ' || reason FROM farwrite.dead_letters
         UNION ALL SELECT command_id, 'parked: ' || reason FROM farwrite.parked",
    )
    .fetch_all(&mut connection)
    .await?;
    let mut words: HashMap<Uuid, String> = HashMap::new();
    for (id, word) in outcomes {
        if let Some(other) = words.insert(id, word) {
            bail!("{id} has two outcomes: {other} and {}", words[&id]);
        }
    }
    let mut expected_effects: BTreeMap<&str, Vec<(Uuid, &Accepted)>> = BTreeMap::new();
    for (id, accepted) in model {
        let word = words.get(id).with_context(|| format!("{id} has no outcome: {accepted:?}"))?;
        let is_right = match accepted.expected {
            Expected::Applied => word == "applied",
            Expected::Rejected => word == "rejected",
            Expected::Expired => word == "expired",
            Expected::AppliedOrExpired => word == "applied" || word == "expired",
        };
        ensure!(is_right, "{id} is {word}: {accepted:?}");
        if word == "applied" && !accepted.key.is_empty() {
            expected_effects.entry(&accepted.key).or_default().push((*id, accepted));
        }
    }
    ensure!(words.len() == model.len(), "{} outcomes of {} ids", words.len(), model.len());
    let effects: Vec<(String, Uuid)> =
        sqlx::query_as("SELECT key, command_id FROM app.effects ORDER BY key, place")
            .fetch_all(&mut connection)
            .await?;
    let expected: usize = expected_effects.values().map(Vec::len).sum();
    ensure!(effects.len() == expected, "{} effects of {expected} commands", effects.len());
    for (key, mut expected) in expected_effects {
        let found: Vec<Uuid> =
            effects.iter().filter(|(k, _)| k == key).map(|(_, id)| *id).collect();
        ensure!(expected.iter().all(|(id, _)| found.contains(id)), "{key}: another's effects");
        // A scheduled command has its place when it is due; all others keep the stream's order.
        expected.retain(|(_, accepted)| !accepted.scheduled);
        expected.sort_by_key(|(_, accepted)| accepted.place);
        let in_order: Vec<Uuid> = expected.iter().map(|(id, _)| *id).collect();
        let found: Vec<Uuid> = found.into_iter().filter(|id| in_order.contains(id)).collect();
        ensure!(found == in_order, "{key}: not in the stream's order");
    }
    Ok(())
}

#[tokio::test]
async fn whatever_happens_every_command_ends_once_and_in_its_keys_order() -> Result<()> {
    let seed = match std::env::var("FARWRITE_SEED") {
        Ok(seed) => seed.parse()?,
        Err(_) => fastrand::u64(..),
    };
    println!("FARWRITE_SEED={seed}");
    let mut random = Rng::with_seed(seed);
    let case = Case::new("random", &["--duplicate-window-ms", "100"]).await?;
    case.execute(APP).await?;
    let (publishing, disturbing) = (random.fork(), random.fork());
    let (model, ()) = tokio::try_join!(publish(&case, publishing), disturb(&case, disturbing))?;
    let worker = case.serving(&FLAGS).await?;
    if let Err(error) = case.settled().await {
        let waiting: Vec<String> = sqlx::query_scalar(
            "SELECT format('%s %s place %s, due %s: %s', p.sequence, p.key_queue, p.place, coalesce(p.due_at, l.due_at), p.reason)
             FROM farwrite.parked p LEFT JOIN farwrite.key_queues l USING (stream_id, key_queue) ORDER BY 1 LIMIT 50",
        )
        .fetch_all(&mut case.primary().await?)
        .await?;
        let log = worker.log_tail();
        bail!("{error}; replay with FARWRITE_SEED={seed}\n{}\n{log}", waiting.join("\n"));
    }
    check(&case, &model).await.with_context(|| format!("replay with FARWRITE_SEED={seed}"))
}
