//! Promise 27: who alters history behind the platform's back is found out, at the first position
//! that isn't what it was; and a head that was kept elsewhere tells even where all seals were made
//! again to fit.
//!
//! It fails where the chain leaves out an event or a part of one, and where seals or heads are
//! taken for the journal's own word.

use std::process::{Command, Stdio};

use serde_json::{Value, json};
use system_tests::{Book, Platform, Setting, Shape, wait_for, workflows};

system_tests::in_both_settings!(what_was_altered_is_named);

/// Has the database itself change the journal.
fn alter(platform: &Platform, text: &str) {
    let Some(url) = platform.database_url() else {
        let file = platform.data_dir().join("journal.db");
        let connection = rusqlite::Connection::open(file).expect("it opens");
        return connection.execute_batch(text).expect("it is altered");
    };
    let folder = std::env::var("WONDER_TEST_POSTGRES_BIN").expect("scripts/with-services sets it");
    let mut command = Command::new(format!("{folder}/psql"));
    // Parameters that are only sqlx's are refused by others.
    let url = url.split('?').next().unwrap_or_default();
    command.args(["-qX", "-v", "ON_ERROR_STOP=1", url]).env("PGOPTIONS", "-csearch_path=wonder");
    let done = command.args(["-c", text]).stdin(Stdio::null()).status().expect("psql runs");
    assert!(done.success(), "{text}");
}

/// The positions of what is found about the chain.
async fn found(platform: &Platform, arguments: &[&str]) -> Vec<u64> {
    let data_dir = platform.data_dir();
    let mut all = vec!["audit", "verify", "-o", "json"];
    if platform.database_url().is_none() {
        all.extend(["--data-dir", data_dir.to_str().expect("a path that is text")]);
    }
    let (_, report, talk) = platform.wonder(&[&all, arguments].concat()).await;
    let report: Value = serde_json::from_str(&report).unwrap_or_else(|_| panic!("{report}{talk}"));
    let findings = report["findings"].as_array().expect("findings").iter();
    let of_chain = findings.filter(|finding| {
        let problem = finding["problem"].as_str().unwrap_or_default();
        problem.contains("sealed") || problem.contains("signed")
    });
    of_chain.filter_map(|finding| finding["position"].as_u64()).collect()
}

async fn what_was_altered_is_named(setting: Setting) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("a text").to_owned();
    let shape = Shape::from(setting).with_audit_key(folder.path());
    let mut platform = Platform::start_as(env!("CARGO_BIN_EXE_wonder"), shape).await;
    let client = platform.client();
    client.post("/workflow-definitions", &workflows::sequence("p27", 2)).await.ok();
    for n in 0..3 {
        client.run_to_end(&json!("p27"), json!({"n": n})).await;
    }
    let head = client.head().await;
    let heads: Value = wait_for("a signed head", || async {
        let heads = client.get("/audit/heads").await;
        let last = heads["items"].as_array().and_then(|items| items.last()?["position"].as_u64());
        (last == Some(head)).then_some(heads)
    })
    .await;
    let public = std::fs::read_to_string(path("key.pub")).expect("it is there");
    assert_eq!(heads["public_key"], public);
    std::fs::write(path("heads.json"), heads.to_string()).expect("it is written");
    platform.stop().await;

    let report = platform.audit(&Book::default()).await;
    assert_eq!(report["sealed"]["position"], head, "{report}");
    assert_eq!(report["sealed"]["signed_position"], head, "{report}");
    assert_eq!(report["sealed"]["signatures_checked"], true, "{report}");
    let kept = ["--heads", &path("heads.json"), "--public-key", &path("key.pub")];
    assert_eq!(found(&platform, &kept).await, [0; 0]);

    // Another time, to the smallest part of it: nothing else in the journal would tell.
    let (table, altered) = ("events", head / 2);
    let later = match setting {
        Setting::Embedded => "recorded_at + 1".to_owned(),
        _ => "recorded_at + interval '1 microsecond'".to_owned(),
    };
    let sql = format!("update {table} set recorded_at = {later} where position = {altered}");
    alter(&platform, &sql);
    assert_eq!(found(&platform, &[]).await, [altered, head]);
    assert_eq!(found(&platform, &kept).await, [altered, head]);

    // The last events are gone, and the database agrees that they never were.
    let end = head - 2;
    let gone = match setting {
        Setting::Embedded => format!("delete from {table} where position > {end}"),
        _ => format!(
            "delete from {table} where position > {end}; update journal_head set position = {end}"
        ),
    };
    alter(&platform, &gone);
    let positions = found(&platform, &kept).await;
    assert_eq!(
        positions.iter().filter(|position| **position == end + 1).count(),
        2,
        "{positions:?}"
    );
}
