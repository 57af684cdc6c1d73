//! Any number of workers: one applies, the others stand by. A worker that lost the database steps
//! back.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use farwrite_devstack::{Devstack, Program};
use futures_util::{StreamExt, future::try_join_all};

use crate::support::{Append, Case, DEADLINE, Message};

/// A worker that finds the database owned.
async fn standing_by(case: &Case, flags: &[&str]) -> Result<Program> {
    let worker = case.spawn("run", flags, &[])?;
    said(case, &worker, "standing by", 1).await?;
    Ok(worker)
}

/// Waits until a worker has said something so many times.
async fn said(case: &Case, worker: &Program, what: &str, times: usize) -> Result<()> {
    let is_so = async || Ok(worker.log().matches(what).count() >= times);
    let waited = case.until(what, is_so).await;
    waited.with_context(|| worker.log_tail())
}

const SERVES: &str = " serving epoch=";
const STEPS_BACK: &str = "this one steps back";

#[tokio::test]
async fn a_worker_that_is_asked_to_stop_hands_over_to_one_that_stands_by() -> Result<()> {
    let case = Case::new("handed_over", &[]).await?;
    let first = case.serving_worker().await?;
    let second = standing_by(&case, &[]).await?;
    case.publish(&Message::append("a", 1)).await?;
    case.settled().await?;
    ensure!(!second.log().contains(SERVES), "{}", second.log_tail());
    ensure!(first.terminate(DEADLINE).await?.success());
    said(&case, &second, SERVES, 1).await?;
    ensure!(second.log().contains("state=Released"), "{}", second.log_tail());
    case.publish(&Message::append("a", 2)).await?;
    case.check_model().await
}

#[tokio::test]
async fn a_batch_in_flight_is_finished_or_done_again_by_whoever_comes_next() -> Result<()> {
    let case = Case::new("in_flight", &[]).await?;
    let sql = "CREATE FUNCTION app.slow(body jsonb, meta farwrite.meta) RETURNS jsonb LANGUAGE plpgsql AS $$
               BEGIN PERFORM pg_sleep((body->>'seconds')::float8); RETURN app.append(body, meta); END $$;
               SELECT farwrite.register('app.slow', 'app.slow(jsonb, farwrite.meta)')";
    case.execute(sql).await?;
    let inbox = format!("farwrite.{}.reply.jfk.test", case.name);
    let mut replies = case.client.subscribe(inbox.clone()).await?;
    let mut worker = case.serving_worker().await?;
    // One that ends in time, and one that does not.
    for (n, seconds) in [(1, 0.2), (2, 2.0)] {
        let next = standing_by(&case, &[]).await?;
        let body = format!("{{\"n\": {n}, \"seconds\": {seconds}}}");
        let slow = Message { body, reply: Some(inbox.clone()), ..Message::append("a", n) };
        let slow = slow.named("app.slow");
        case.publish(&slow).await?;
        let sql = "SELECT count(*) FROM pg_stat_activity
                   WHERE wait_event = 'PgSleep' AND datname = current_database()";
        case.until("the batch runs", async || Ok(case.count(sql).await? > 0)).await?;
        let status = worker.terminate(DEADLINE).await?;
        ensure!(status.success(), "{status}\n{}", worker.log_tail());
        let reply = tokio::time::timeout(DEADLINE, replies.next()).await?.context("no reply")?;
        ensure!(farwrite_schemas::Reply::decode(&reply.payload)?.id == slow.id);
        said(&case, &next, SERVES, 1).await?;
        worker = next;
    }
    ensure!(case.effects().await? == [("a".to_owned(), vec![1, 2])].into());
    Ok(())
}

#[tokio::test]
async fn a_worker_that_is_killed_is_succeeded_as_soon_as_its_session_is_gone() -> Result<()> {
    let case = Case::new("killed", &[]).await?;
    // Long enough that only the session's end can be the reason.
    let lease = ["--lease-ms", "300000"];
    let first = case.serving(&lease).await?;
    let second = standing_by(&case, &lease).await?;
    for n in 0..100 {
        case.publish(&Message::append(&format!("key {}", n % 7), n)).await?;
    }
    first.kill().await?;
    said(&case, &second, SERVES, 1).await?;
    ensure!(second.log().contains("state=Gone"), "{}", second.log_tail());
    case.check_model().await
}

#[tokio::test]
async fn a_worker_that_is_stopped_in_its_tracks_is_succeeded_after_its_lease_and_steps_back()
-> Result<()> {
    let case = Case::new("suspended", &[]).await?;
    let lease = ["--lease-ms", "500"];
    let first = case.serving(&lease).await?;
    let second = standing_by(&case, &lease).await?;
    case.publish(&Message::append("a", 1)).await?;
    case.settled().await?;
    first.suspend()?;
    case.publish(&Message::append("a", 2)).await?;
    said(&case, &second, SERVES, 1).await?;
    ensure!(second.log().contains("state=Silent"), "{}", second.log_tail());
    case.check_model().await?;
    // It wakes up with a command in its hands that its successor has applied.
    first.resume()?;
    case.publish(&Message::append("a", 3)).await?;
    said(&case, &first, STEPS_BACK, 1).await?;
    said(&case, &first, "standing by", 1).await?;
    case.check_model().await?;
    // And it is there when it is needed.
    ensure!(second.terminate(DEADLINE).await?.success());
    case.publish(&Message::append("a", 4)).await?;
    said(&case, &first, SERVES, 2).await?;
    case.check_model().await
}

#[tokio::test]
async fn a_worker_that_is_cut_off_is_succeeded_and_steps_back_when_it_is_back() -> Result<()> {
    // A stack of its own, because a link is cut.
    let stack = Devstack::builder().regions(["ewr", "jfk"]).start().await?;
    let case = Case::on(Box::leak(Box::new(stack)), "cut_off", &[]).await?;
    let far = case.stack.primary_url_from("jfk", &case.name)?;
    let lease = ["--lease-ms", "500"];
    let first = case.spawn("run", &lease, &[("FARWRITE_DATABASE_URL", &far)])?;
    said(&case, &first, SERVES, 1).await?;
    let second = standing_by(&case, &lease).await?;
    case.publish(&Message::append("a", 1)).await?;
    case.settled().await?;
    let link = case.stack.primary_link("jfk")?;
    link.cut();
    case.publish(&Message::append("a", 2)).await?;
    said(&case, &second, SERVES, 1).await?;
    ensure!(second.log().contains("state=Silent"), "{}", second.log_tail());
    case.check_model().await?;
    link.heal();
    said(&case, &first, STEPS_BACK, 1).await?;
    case.publish(&Message::append("a", 3)).await?;
    case.check_model().await
}

#[tokio::test]
async fn a_forced_takeover_leaves_one_of_two_active_workers() -> Result<()> {
    let case = Case::new("forced", &[]).await?;
    let first = case.serving_worker().await?;
    let publishing = AtomicBool::new(true);
    let load = async {
        let mut n = 0;
        while publishing.load(Ordering::Relaxed) {
            case.publish(&Message::append(&format!("key {}", n % 7), n)).await?;
            n += 1;
        }
        anyhow::Ok(())
    };
    let taking = async {
        let second = case.serving(&["--take-over", "true"]).await?;
        said(&case, &first, STEPS_BACK, 1).await?;
        // What was forced was forced once: it does not take the database back.
        let third = case.serving(&["--take-over", "true"]).await?;
        said(&case, &second, STEPS_BACK, 1).await?;
        said(&case, &second, "standing by", 1).await?;
        publishing.store(false, Ordering::Relaxed);
        anyhow::Ok((second, third))
    };
    let (_, (second, third)) = tokio::try_join!(load, taking)?;
    case.check_model().await?;
    ensure!(first.status()?.is_none() && second.status()?.is_none() && third.status()?.is_none());
    ensure!(second.log().matches(SERVES).count() == 1, "{}", second.log_tail());
    Ok(())
}

#[tokio::test]
async fn a_rolling_deploy_under_load_fails_no_write_and_keeps_the_order() -> Result<()> {
    let case = Case::new("rolling", &[]).await?;
    let mut worker = case.serving(&["--lanes", "4"]).await?;
    let producer = case.producer("ewr").await?;
    let publishing = AtomicBool::new(true);
    let load = try_join_all((0..8).map(async |key| {
        let (mut n, mut longest) = (0, Duration::ZERO);
        while publishing.load(Ordering::Relaxed) {
            let began = Instant::now();
            let append = Append { key: format!("key {key}"), n };
            let done = producer.submit(&append).await?;
            ensure!(done.output.place == n + 1, "place {} of {n}", done.output.place);
            longest = longest.max(began.elapsed());
            n += 1;
        }
        Ok((n, longest))
    }));
    let deploying = async {
        for lanes in ["2", "8", "1", "4"] {
            let next = standing_by(&case, &["--lanes", lanes]).await?;
            ensure!(worker.terminate(DEADLINE).await?.success(), "{}", worker.log_tail());
            said(&case, &next, SERVES, 1).await?;
            worker = next;
        }
        publishing.store(false, Ordering::Relaxed);
        Ok(())
    };
    let (written, ()) = tokio::try_join!(load, deploying)?;
    let writes: i32 = written.iter().map(|(n, _)| n).sum();
    let longest = written.iter().map(|(_, longest)| *longest).max().unwrap_or_default();
    println!("{writes} writes over four deploys; the longest took {} ms", longest.as_millis());
    ensure!(writes > 0);
    case.check_model().await
}

#[tokio::test]
async fn a_worker_on_a_lost_branch_steps_back_from_the_one_that_serves_the_new_primary()
-> Result<()> {
    let stack = Devstack::builder().regions(["ewr", "jfk"]).start().await?;
    let case = Case::on(Box::leak(Box::new(stack)), "split_brain", &[]).await?;
    let on = async |region: &str| {
        let url = case.stack.server(region)?.url(&case.name);
        let worker = case.spawn("run", &[], &[("FARWRITE_DATABASE_URL", &url)])?;
        said(&case, &worker, SERVES, 1).await?;
        anyhow::Ok(worker)
    };
    let old = on("ewr").await?;
    case.publish(&Message::append("a", 1)).await?;
    case.settled().await?;
    case.stack.replica("jfk")?.wait_caught_up(case.stack.primary(), DEADLINE).await?;
    // Nobody stops the old primary, or tells its worker.
    case.stack.promote("jfk").await?;
    let new = on("jfk").await?;
    said(&case, &old, "the broker names another worker", 1).await?;
    said(&case, &old, "has served timeline 2", 1).await?;
    case.stack.set_primary("jfk")?;
    case.publish(&Message::append("a", 2)).await?;
    case.settled().await?;
    ensure!(case.effects().await? == [("a".to_owned(), vec![1, 2])].into());
    // It tries again and again, and applies nothing there.
    said(&case, &old, "has served timeline 2", 3).await?;
    let mut there = case.stack.server("ewr")?.connect(&case.name).await?;
    let effects: i64 =
        sqlx::query_scalar("SELECT count(*) FROM app.effects").fetch_one(&mut there).await?;
    ensure!(effects == 1, "{effects} effects on the lost branch");
    ensure!(old.status()?.is_none() && new.status()?.is_none());
    ensure!(new.log().matches(SERVES).count() == 1, "{}", new.log_tail());
    Ok(())
}

#[tokio::test]
async fn a_worker_that_cannot_tell_who_serves_answers_nobody() -> Result<()> {
    let case = Case::new("silent", &[]).await?;
    let worker = case.serving_worker().await?;
    let inbox = format!("farwrite.{}.reply.jfk.test", case.name);
    let mut replies = case.client.subscribe(inbox.clone()).await?;
    // It is gone, and cannot be made again: another stream has its subjects.
    worker.suspend()?;
    case.context.delete_stream(format!("farwrite-{}-hints", case.name)).await?;
    let other = async_nats::jetstream::stream::Config {
        name: format!("{}-other", case.name),
        subjects: vec![format!("farwrite.{}.served.>", case.name)],
        ..Default::default()
    };
    let other = case.context.create_stream(other).await?.cached_info().config.name.clone();
    worker.resume()?;
    said(&case, &worker, "nobody is answered", 1).await?;
    let mute = Message { reply: Some(inbox.clone()), ..Message::append("a", 1) };
    case.publish(&mute).await?;
    case.settled().await?;
    ensure!(case.outcome(mute.id).await?.is_none());
    case.context.delete_stream(other).await?;
    said(&case, &worker, "answers leave", 1).await?;
    let heard = Message { reply: Some(inbox), ..Message::append("a", 2) };
    case.publish(&heard).await?;
    let reply = tokio::time::timeout(DEADLINE, replies.next()).await?.context("no reply")?;
    ensure!(farwrite_schemas::Reply::decode(&reply.payload)?.id == heard.id);
    ensure!(case.outcome(mute.id).await?.is_some());
    Ok(())
}
