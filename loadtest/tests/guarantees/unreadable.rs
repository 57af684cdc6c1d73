//! Messages that the client library cannot read, and that end its connection or the client itself.

use anyhow::{Context, Result, ensure};
use farwrite_schemas::{CommandId, Subjects};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Case, DEADLINE, Message};

/// Publishes what the client library would not: bytes as they are, and waits until they are taken.
async fn publish_raw(case: &Case, lines: &[&[u8]]) -> Result<()> {
    let url = case.stack.nats().url();
    let address = url.strip_prefix("nats://").context("an address")?;
    let mut nats = tokio::net::TcpStream::connect(address).await?;
    nats.write_all(b"CONNECT {\"verbose\":false,\"headers\":true}\r\n").await?;
    for line in lines {
        nats.write_all(line).await?;
    }
    nats.write_all(b"PING\r\n").await?;
    let mut answer = String::new();
    while !answer.contains("PONG") {
        let mut bytes = [0; 4_096];
        let read = nats.read(&mut bytes).await?;
        ensure!(read > 0, "{answer}");
        answer.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
    ensure!(!answer.contains("-ERR"), "{answer}");
    Ok(())
}

/// A message to `subject` with these headers, in the protocol's words.
fn with_headers(subject: &str, headers: &[u8]) -> Vec<u8> {
    let header = [headers, b"\r\n\r\n"].concat();
    let (length, total) = (header.len(), header.len() + 2);
    let head = format!("HPUB {subject} {length} {total}\r\n");
    [head.as_bytes(), &header, b"{}\r\n"].concat()
}

/// Ends the client that reads it.
const DEADLY: &[u8] = b"NATS/1.0\r\nX: a\rb";
/// The same, in a value of several lines.
const DEADLY_FOLDED: &[u8] = b"NATS/1.0\r\nX: a\r\n \rb";

#[tokio::test]
async fn a_message_that_no_client_can_read_is_kept_and_blocks_nobody() -> Result<()> {
    let case = Case::new("raw", &[]).await?;
    let worker = case.serving(&["--lanes", "1"]).await?;
    let subject = case.subject("app.append");
    publish_raw(&case, &[&[b"PUB ", subject.as_bytes(), b"\xff 2\r\n{}\r\n"].concat()]).await?;
    for headers in
        [&b"NATS/1.0\r\nX: \xff"[..], b"NATS/1.0\r\nX", b"NATS/1.0 409 Consumer Deleted", DEADLY]
    {
        publish_raw(&case, &[&with_headers(&subject, headers)]).await?;
    }
    let parted = format!("{subject}\u{a0}x");
    publish_raw(&case, &[&with_headers(&parted, b"NATS/1.0\r\nX: a")]).await?;
    case.publish(&Message::append("a", 1)).await?;
    case.settled().await?;
    ensure!(case.effects().await?["a"] == [1]);
    let letters = case.count("SELECT count(*) FROM farwrite.dead_letters").await?;
    ensure!(letters == 6, "{letters} dead letters");
    ensure!(worker.terminate(DEADLINE).await?.success());
    Ok(())
}

#[tokio::test]
async fn messages_that_end_every_client_are_found_among_others() -> Result<()> {
    let case = Case::new("deadly", &[]).await?;
    let subject = case.subject("app.append");
    let deadly = with_headers(&subject, DEADLY);
    for n in 1..=3 {
        case.publish(&Message::append("a", 2 * n)).await?;
        case.publish(&Message::append(&format!("b{n}"), n)).await?;
        let folded = with_headers(&subject, DEADLY_FOLDED);
        let mut several = vec![&folded[..]];
        several.resize(usize::try_from(n)?, &deadly);
        publish_raw(&case, &several).await?;
        case.publish(&Message::append("a", 2 * n + 1)).await?;
    }
    publish_raw(&case, &[&deadly]).await?;
    let worker = case.serving(&["--lanes", "2"]).await?;
    case.settled().await?;
    ensure!(case.effects().await?["a"] == (2..=7).collect::<Vec<_>>());
    let letters = case.count("SELECT count(*) FROM farwrite.dead_letters").await?;
    ensure!(letters == 7, "{letters} dead letters");
    // The last one is what the next start compares the stream by.
    ensure!(worker.terminate(DEADLINE).await?.success());
    let worker = case.serving(&["--lanes", "2"]).await?;
    case.publish(&Message::append("a", 8)).await?;
    case.settled().await?;
    ensure!(case.effects().await?["a"] == (2..=8).collect::<Vec<_>>());
    ensure!(worker.terminate(DEADLINE).await?.success());
    Ok(())
}

#[tokio::test]
async fn a_message_with_two_ids_is_known_again_at_the_next_start() -> Result<()> {
    let case = Case::new("two_ids", &[]).await?;
    let ids = [CommandId::now(), CommandId::now()];
    let headers =
        format!("NATS/1.0\r\nNats-Msg-Id: {}\r\nNats-Msg-Id: {}", ids[0], ids[1]).into_bytes();
    let worker = case.serving(&["--lanes", "1"]).await?;
    publish_raw(&case, &[&with_headers(&case.subject("app.append"), &headers)]).await?;
    case.settled().await?;
    ensure!(case.outcome(ids[0]).await?.is_some() && case.outcome(ids[1]).await?.is_none());
    ensure!(worker.terminate(DEADLINE).await?.success());
    let _worker = case.serving(&["--lanes", "1"]).await?;
    case.publish(&Message::append("a", 1)).await?;
    case.settled().await?;
    ensure!(case.effects().await?["a"] == [1]);
    Ok(())
}

#[tokio::test]
async fn a_request_that_ends_every_client_is_survived_by_the_worker() -> Result<()> {
    let case = Case::new("deadly_requests", &[]).await?;
    let worker = case.serving_worker().await?;
    let subjects = Subjects::new(case.name.parse()?);
    for (n, subject) in (1..).zip([subjects.outcome(), subjects.lag()]) {
        publish_raw(&case, &[&with_headers(&subject, DEADLY)]).await?;
        let message = Message::append("a", n);
        case.publish(&message).await?;
        case.until("its outcome is told", async || Ok(case.outcome(message.id).await?.is_some()))
            .await?;
    }
    case.check_model().await?;
    ensure!(worker.terminate(DEADLINE).await?.success());
    Ok(())
}

#[tokio::test]
async fn a_request_that_ends_every_client_ends_a_watcher_which_says_why() -> Result<()> {
    let case = Case::new("deadly_wishes", &[]).await?;
    let subjects = Subjects::new(case.name.parse()?);
    let region = "jfk".parse()?;
    for subject in [subjects.visibility(&region), subjects.watch(&region)] {
        let watcher = case.watcher("jfk")?;
        // As soon as it listens.
        case.until("the watcher ends", async || {
            publish_raw(&case, &[&with_headers(&subject, DEADLY)]).await?;
            Ok(watcher.status()?.is_some())
        })
        .await?;
        let status = watcher.wait(DEADLINE).await?;
        let log = watcher.log_tail();
        ensure!(!status.success() && log.contains("the NATS client was closed"), "{log}");
    }
    Ok(())
}
