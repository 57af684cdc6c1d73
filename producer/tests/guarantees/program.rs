//! The program `producer`: one line of JSON, and an exit status that a script can act on.

use serde_json::Value;
use tokio::process::Command;

use crate::stage::{Stage, within};

async fn run(stage: &Stage, verb: &str, arguments: &[&str]) -> (Option<i32>, Value) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_producer"));
    command.env_clear().args([verb, "--database", stage.database.as_str(), "--origin", "jfk"]);
    command.args(["--nats-url", &stage.stack.nats().url(), "--timeout-ms", "700"]);
    let output = within(command.args(arguments).output()).await.unwrap();
    let line = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.code(), line)
}

#[tokio::test]
async fn the_exit_status_tells_how_it_went() {
    let stage = Stage::new("program").await;
    let (status, line) = run(&stage, "publish", &["order.place", "{}"]).await;
    assert_eq!((status, &line["known"]), (Some(1), &"not_accepted".into()), "{line}");
    let mut stream = stage.stream().await;
    let id = "0192f5c0-8a7b-7cc3-b1a2-c3d4e5f60718";
    let arguments = ["--key", "k", "--version", "2", "--id", id, "order.place", "{}"];
    let (status, line) = run(&stage, "publish", &arguments).await;
    assert_eq!((status, &line["sequence"]), (Some(0), &1.into()), "{line}");
    assert_eq!(line["id"], id);
    let (status, line) = run(&stage, "submit", &arguments).await;
    assert_eq!((status, &line["known"]), (Some(4), &"accepted".into()), "{line}");
    assert_eq!(run(&stage, "write", &arguments).await.0, Some(2), "there is nowhere to read");
    assert_eq!(run(&stage, "publish", &["order.place", "{"]).await.0, Some(2));
    assert_eq!(run(&stage, "outcome", &["no-id"]).await.0, Some(2));
    assert_eq!(run(&stage, "outcome", &[id]).await.0, Some(1), "nobody answers");
    assert_eq!(stream.info().await.unwrap().state.messages, 1);
}
