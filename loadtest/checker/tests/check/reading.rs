//! What is no history, and what is one all the same.

use farwrite_checker::{self as check, CommandEnd, History, HistoryVerb, HistoryWriter};
use serde_json::json;
use uuid::Uuid;

use super::{model::good, report, text};

const HEADER: &str = r#"{"farwrite_history":1,"seed":7,"started":"now"}"#;
const READ: &str =
    r#"{"t_us":1,"op":1,"start":"read","client":"c","region":"r","key":"k","bookmark":true}"#;
const FAILED: &str = r#"{"t_us":2,"op":1,"end":"failed"}"#;
const END: &str = r#"{"final":"end"}"#;

fn refusal(lines: &[&str]) -> String {
    format!("{:#}", History::read(lines.join("\n").as_bytes()).unwrap_err())
}

#[test]
fn a_history_without_its_last_line_is_an_error() {
    let mut lines = good(3, 300, true);
    assert!(report(&lines).is_well());
    lines.pop();
    let error = History::read(text(&lines).as_bytes()).unwrap_err().to_string();
    assert!(error.contains("incomplete"), "{error}");
    assert!(refusal(&[]).contains("empty"));
}

#[test]
fn a_line_that_is_wrong_is_named() {
    for (line, reason) in [
        ("{\"t_us\":1,", "EOF"),
        ("nonsense", "expected"),
        ("{}", "of no kind"),
        (r#"{"t_us":1,"op":2,"start":"read","end":"read"}"#, "of no kind"),
        (
            r#"{"t_us":1,"op":2,"start":"shout","client":"c","region":"r","id":"00000000-0000-0000-0000-000000000001","key":"k"}"#,
            "`shout`",
        ),
        (
            r#"{"t_us":1,"op":2,"start":"publish","client":"c","region":"r","id":"7","key":"k"}"#,
            "UUID",
        ),
        (r#"{"t_us":1,"op":2,"start":"publish","client":"c","region":"r","key":"k"}"#, "`id`"),
        (r#"{"t_us":3,"op":1,"end":"gone"}"#, "`gone`"),
        (r#"{"t_us":3,"op":1,"end":"read"}"#, "`n`"),
        (r#"{"t_us":3,"op":1,"end":"failed"}"#, "ends twice"),
        (r#"{"t_us":3,"op":1,"end":"applied"}"#, "no command 1 began"),
        (r#"{"t_us":3,"op":2,"end":"failed"}"#, "no read 2 began"),
        (READ, "begins twice"),
        (r#"{"t_us":3,"event":"rain"}"#, "`rain`"),
        (r#"{"t_us":3,"event":"superseded"}"#, "`client`"),
        (r#"{"final":"rest"}"#, "`rest`"),
        (
            r#"{"final":"outcome","id":"00000000-0000-0000-0000-000000000001","outcome":"parked"}"#,
            "`parked`",
        ),
        (HEADER, "one header"),
    ] {
        let error = refusal(&[HEADER, READ, FAILED, line, END]);
        assert!(error.starts_with("line 4: "), "{line}: {error}");
        assert!(error.contains(reason), "{line}: {error}");
    }
    assert!(refusal(&[READ, END]).starts_with("line 1: a history has one header"));
    assert!(refusal(&[HEADER, END, FAILED]).starts_with("line 3: something follows"));
    let message =
        r#"{"final":"message","sequence":1,"id":"00000000-0000-0000-0000-000000000001","key":"k"}"#;
    assert!(refusal(&[HEADER, message, READ, END]).starts_with("line 3: something happens"));
    let newer = r#"{"farwrite_history":2,"seed":7,"started":"now"}"#;
    assert!(refusal(&[newer, END]).starts_with("line 1: a history of version 2"));
    let backwards = r#"{"t_us":0,"op":1,"end":"failed"}"#;
    assert!(refusal(&[HEADER, READ, backwards, END]).contains("ends before it begins"));
}

#[test]
fn what_is_not_known_of_a_line_is_passed_over() {
    let more = r#"{"t_us":2,"op":1,"end":"failed","why":"the region was late"}"#;
    let history = History::read([HEADER, READ, more, "", END].join("\n").as_bytes()).unwrap();
    assert!(check::check(&history).is_well());
}

/// The clock and the lines go the same way, with several writers too.
#[test]
fn many_hands_write_one_history() {
    let folder = std::env::temp_dir().join(format!("farwrite-check-{}", Uuid::now_v7()));
    let path = folder.join("deep/history.jsonl");
    let writer = HistoryWriter::create(&path, 7, "2026-01-01T00:00:00Z").unwrap();
    let write = |client: usize| {
        let (writer, client) = (writer.clone(), format!("c{client}"));
        std::thread::spawn(move || {
            for _ in 0..200 {
                let (whom, id) = ((client.as_str(), "far"), Uuid::now_v7());
                let op =
                    writer.start_command(HistoryVerb::Submit, whom, id, "k", &json!({})).unwrap();
                writer.end_command(op, CommandEnd::Refused, false).unwrap();
                let op = writer.start_read(whom, "k", true).unwrap();
                writer.end_read(op, 0, None).unwrap();
            }
        })
    };
    let hands: Vec<_> = (0..4).map(write).collect();
    hands.into_iter().for_each(|hand| hand.join().unwrap());
    writer.finish().unwrap();
    let report = check::check_file(&path).unwrap();
    assert!(report.is_well(), "{report}");
    assert_eq!((report.counts.refused, report.counts.reads), (800, 800));
    let text = std::fs::read_to_string(&path).unwrap();
    let times = text.lines().filter_map(|line| {
        serde_json::from_str::<serde_json::Value>(line).unwrap()["t_us"].as_u64()
    });
    assert!(times.is_sorted());
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn an_escaped_key_is_the_same_key() {
    let done = good(5, 300, false);
    let escaped = text(&done).replace("\"k1\"", "\"\\u006b1\"");
    let history = History::read(escaped.as_bytes()).unwrap();
    assert_eq!(check::check(&history).counts, report(&done).counts);
}

#[test]
fn the_command_says_so_in_its_json_too() {
    let folder = std::env::temp_dir().join(format!("farwrite-check-{}", Uuid::now_v7()));
    std::fs::create_dir_all(&folder).unwrap();
    let history = folder.join("history.jsonl");
    let json = folder.join("reports/report.json");
    let mut said = Vec::new();
    let check = |said: &mut _| check::run(&history, Some(&json), said);
    let found = || {
        let text = std::fs::read_to_string(&json).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()
    };

    let mut lines = good(4, 300, false);
    std::fs::write(&history, text(&lines)).unwrap();
    assert!(check(&mut said).unwrap());
    assert_eq!(found()["check"], "PASS");
    assert_eq!(found()["counts"]["lines"], lines.len());

    let at = lines.iter().position(|line| line["outcome"] == "rejected").unwrap();
    let id = lines.remove(at)["id"].clone();
    std::fs::write(&history, text(&lines)).unwrap();
    assert!(!check(&mut said).unwrap());
    assert_eq!(found()["check"], "FAIL");
    assert_eq!(found()["violations"][0]["law"], "outcome_missing");
    assert_eq!(found()["violations"][0]["ids"], json!([id]));

    lines.pop();
    std::fs::write(&history, text(&lines)).unwrap();
    assert!(check(&mut said).is_err());
    assert_eq!(found()["check"], "FAIL");
    assert!(found()["reason"].as_str().unwrap().contains("incomplete"));
    let said = String::from_utf8(said).unwrap();
    let verdicts: Vec<_> = said.lines().filter(|line| line.starts_with("check: ")).collect();
    assert_eq!(verdicts, ["check: PASS", "check: FAIL (1 violation)"]);
    std::fs::remove_dir_all(&folder).unwrap();
}
