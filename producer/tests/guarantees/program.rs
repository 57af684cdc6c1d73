//! The verbs of the program `farwrite`: one line of JSON, and an exit status that a script can act on.

use std::process::Stdio;

use farwrite_schemas::{Lsn, headers};
use futures_util::StreamExt;
use serde_json::Value;
use tokio::{io::AsyncWriteExt, process::Command};

use crate::stage::{LONG, Stage, Worker, farwrite, header, within};

const ID: &str = "0192f5c0-8a7b-7cc3-b1a2-c3d4e5f60718";

fn verb_of(stage: &Stage, verb: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(farwrite());
    command.env_clear().args([verb, "--database", stage.database.as_str(), "--origin", "jfk"]);
    command.args(["--nats-url", &stage.stack.nats().url()]).args(arguments);
    command.env("FARWRITE_TIMEOUT_MS", "700");
    command
}

async fn end_of(mut command: Command) -> (Option<i32>, Value) {
    let output = within(command.output()).await.unwrap();
    let line = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.code(), line)
}

async fn run(stage: &Stage, verb: &str, arguments: &[&str]) -> (Option<i32>, Value) {
    end_of(verb_of(stage, verb, arguments)).await
}

#[tokio::test]
async fn the_exit_status_tells_how_it_went() {
    let stage = Stage::new("program").await;
    let (status, line) = run(&stage, "publish", &["order.place", "{}"]).await;
    assert_eq!((status, &line["known"]), (Some(1), &"not_accepted".into()), "{line}");
    let mut stream = stage.stream().await;
    let arguments = ["--key", "k", "--version", "2", "--id", ID, "order.place", "{}"];
    let (status, line) = run(&stage, "publish", &arguments).await;
    assert_eq!((status, &line["sequence"]), (Some(0), &1.into()), "{line}");
    assert_eq!(line["id"], ID);
    let (status, line) = run(&stage, "submit", &arguments).await;
    assert_eq!((status, &line["known"]), (Some(4), &"accepted".into()), "{line}");
    assert_eq!(run(&stage, "outcome", &[ID]).await.0, Some(1), "nobody answers");
    assert_eq!(run(&stage, "lag", &[]).await.0, Some(1), "nobody answers");
    assert_eq!(stream.info().await.unwrap().state.messages, 1);
}

#[tokio::test]
async fn what_is_wrong_on_the_command_line_is_not_sent() {
    let stage = Stage::new("usage").await;
    let mut stream = stage.stream().await;
    let bookmark = "fw1.elsewhere.1.0192f5c08a7b7cc3b1a2c3d4e5f60718.16-B374D848";
    let command = |options: &[&'static str]| [options, &["a", "{}"]].concat();
    let wrong: [(&str, Vec<&str>); 12] = [
        ("write", command(&[])), // there is nowhere to read
        ("publish", vec!["a", "{"]),
        ("publish", vec!["a b", "{}"]),
        ("publish", command(&["--expires-in-ms", "0"])),
        ("publish", command(&["--expires-at", "1000"])),
        ("publish", command(&["--expires-in-ms", "5", "--expires-at", "5"])),
        ("submit", command(&["--expires-in-ms", "500", "--delay-ms", "500"])),
        ("submit", command(&["--context", "[]"])),
        ("submit", command(&["--context", "{"])),
        ("outcome", vec!["no-id"]),
        ("wait", vec!["no-bookmark"]),
        ("wait", vec![bookmark]),
    ];
    for (verb, arguments) in wrong {
        let (status, line) = run(&stage, verb, &arguments).await;
        assert_eq!(status, Some(2), "{verb} {arguments:?}: {line}");
    }
    assert_eq!(stream.info().await.unwrap().state.messages, 0);
}

#[tokio::test]
async fn an_outcome_is_asked_of_the_worker_though_what_is_read_here_is_silent() {
    let stage = Stage::new("silent").await;
    let mut questions = stage.questions().await;
    let id = ID.parse().unwrap();
    let answer = stage.applied(id, "7", Lsn(9)).encode().unwrap();
    let client = stage.client.clone();
    let answering = tokio::spawn(async move {
        while let Some(question) = questions.next().await {
            client.publish(question.reply.unwrap(), answer.clone().into()).await.unwrap();
        }
    });
    // It takes connections, and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://nobody@{}/nothing", silent.local_addr().unwrap());
    for _ in 0..5 {
        let mut command = verb_of(&stage, "outcome", &[ID]);
        command.env("FARWRITE_TIMEOUT_MS", "10000").env("FARWRITE_REPLICA_URL", &url);
        let (status, line) = end_of(command).await;
        assert_eq!((status, &line["known"]), (Some(0), &"applied".into()), "{line}");
    }
    answering.abort();
}

#[tokio::test]
async fn options_become_headers_and_the_body_may_come_from_standard_input() {
    let stage = Stage::new("options").await;
    let mut broker = stage.broker().await;
    let options = [
        "--expires-at",
        "4000000000000",
        "--not-before",
        "1",
        "--context",
        "{\"tenant\": 7}",
        "a",
        "-",
    ];
    let mut command = verb_of(&stage, "publish", &options);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"{\"n\": 1}").await.unwrap();
    let published = broker.next().await;
    broker.store(&published, 7).await;
    assert_eq!(&published.payload[..], b"{\"n\": 1}");
    assert_eq!(header(&published, headers::EXPIRES_AT).as_deref(), Some("4000000000000"));
    assert_eq!(header(&published, headers::NOT_BEFORE).as_deref(), Some("1"));
    assert_eq!(header(&published, headers::CONTEXT).as_deref(), Some("{\"tenant\": 7}"));
    let output = within(child.wait_with_output()).await.unwrap();
    let line: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &line["sequence"]), (Some(0), &7.into()), "{line}");
}

#[tokio::test]
async fn every_verb_answers_in_json() {
    let stage = Stage::new("verbs").await;
    let worker = Worker::prepare(&stage).await;
    let working = worker.begin().await;
    drop(worker.reader().await);
    let replica = worker.replica_url();
    let run = async |verb: &str, arguments: &[&str]| {
        let mut command = verb_of(&stage, verb, arguments);
        command.env("FARWRITE_TIMEOUT_MS", "30000").env("FARWRITE_REPLICA_URL", &replica);
        end_of(command).await
    };
    let see = ["--key", "k", "see", "{\"n\": 1}"];
    let (status, line) = run("publish", &["--delay-ms", "600000", "see", "{\"n\": 1}"]).await;
    assert_eq!((status, &line["known"]), (Some(0), &"accepted".into()), "{line}");
    let later = line["id"].as_str().unwrap().to_owned();
    let (status, line) = run("submit", &see).await;
    assert_eq!((status, &line["known"]), (Some(0), &"committed".into()), "{line}");
    let (id, bookmark) = (line["id"].as_str().unwrap(), line["bookmark"].as_str().unwrap());
    let (status, line) = run("wait", &[bookmark]).await;
    assert_eq!((status, &line["known"]), (Some(0), &"visible".into()), "{line}");
    let (status, line) = run("write", &["--context", "{\"tenant\": 7}", "see", "{\"n\": 2}"]).await;
    assert_eq!((status, &line["known"]), (Some(0), &"visible".into()), "{line}");
    assert_eq!(line["output"], 2);
    let (status, line) = run("write", &["see", "{\"n\": \"x\"}"]).await;
    assert_eq!((status, &line["rejection"]["code"]), (Some(3), &"22P02".into()), "{line}");
    let (status, line) = run("lag", &[]).await;
    assert_eq!(status, Some(0), "{line}");
    assert!(line["commands"].is_u64() && line["seconds"].is_number(), "{line}");
    let (status, line) = run("outcome", &[&later]).await;
    assert_eq!((status, &line["known"]), (Some(4), &"pending".into()), "{line}");
    assert_eq!(line["parked"]["reason"], "scheduled");
    for is_working in [true, false] {
        let (status, line) = run("outcome", &[id]).await;
        assert_eq!(
            (status, &line["known"], &line["detail"]),
            (Some(0), &"applied".into(), &1.into())
        );
        assert_eq!((&line["sequence"], &line["attempts"]), (&2.into(), &1.into()), "{line}");
        if is_working {
            assert!(working.terminate(LONG).await.unwrap().success());
        }
    }
}
