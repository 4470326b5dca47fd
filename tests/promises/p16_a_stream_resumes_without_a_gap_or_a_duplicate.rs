//! Promise 16: a stream resumes without a gap or a duplicate; a slow reader costs the writer
//! nothing.
//!
//! Readers follow all events while the processes that serve them are killed and replaced. It fails
//! where a cursor isn't the journal's position, where the hand-over from history to live events
//! loses one, where a stream that broke off goes on elsewhere at the wrong place, where one that is
//! narrowed to runs with a label misses what a list of them shows, and where what a reader doesn't
//! take is kept for it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};
use system_tests::{Client, Pace, Setting, Traffic, workflows};
use tokio::io::AsyncReadExt;

system_tests::in_both_settings!(
    readers_resume_whoever_vanishes,
    readers_of_a_label_resume_and_see_its_runs_whole,
    a_reader_that_hardly_reads_costs_nothing,
);

/// Readers of all events at the same time.
const READERS: usize = 3;
/// Bytes of the result of each task of the heavy run.
const HEAVY_BYTES: usize = 40 * 1024;
/// Tasks that fill what is kept of recent events in any case.
const FILLING: usize = 600;
/// Tasks after that.
const TASKS: usize = 900;
/// Bytes that a process may grow by while events come that its slow reader doesn't take: a third of
/// what they are.
const GROWTH_BYTES: u64 = (TASKS * HEAVY_BYTES / 3) as u64;
/// What a process keeps of recent events in any case. The run that fills it is one coordinator's,
/// and the run after it may be another one's.
const KEPT_BYTES: u64 = 16 * 1024 * 1024;

/// Reads up to a position that is told later, and reconnects with its cursor where a stream ends.
/// Answers how often it connected.
async fn reader(client: Client, last: Arc<AtomicU64>) -> u64 {
    let (mut read, mut cursor, mut connected) = (0, None::<String>, 0);
    while read < last.load(Ordering::Acquire) {
        let Some(mut follower) = client.try_follow("/events", cursor.as_deref()).await else {
            Pace::new(1).pause_exactly(50).await;
            continue;
        };
        connected += 1;
        // While everything is still, a stream says nothing: it is left when all is read.
        while read < last.load(Ordering::Acquire) {
            let Some(sent) = follower.next().await else { break };
            if sent.name == "error" {
                break;
            }
            let position = sent.data["position"].as_u64().expect("an event has a position");
            assert_eq!(position, read + 1, "a reader saw a gap or a repetition");
            (read, cursor) = (position, Some(sent.id));
        }
    }
    connected
}

async fn readers_resume_whoever_vanishes(setting: Setting) {
    let mut platform = crate::platform_in(setting).await;
    let client = platform.client();
    let traffic = Traffic::start(&client, 3).await;
    let last = Arc::new(AtomicU64::new(u64::MAX));
    let readers: Vec<_> =
        (0..READERS).map(|_| tokio::spawn(reader(client.clone(), Arc::clone(&last)))).collect();
    let names = match setting {
        Setting::Distributed => vec!["gateway-1", "projector-1", "coordinator-1", "gateway-1"],
        Setting::Embedded | Setting::Database => vec!["platform"; 4],
    };
    let blows = names.len() as u64;
    for name in names {
        traffic.progress(8).await;
        platform.kill_one(name).await;
        platform.start_one(name).await;
    }
    traffic.progress(8).await;
    let book = traffic.stop().await;
    client.all_ended().await;
    let ended = client.run_to_end(&workflows::sequence("p16", 1), json!({"n": 1})).await;
    last.store(ended["position"].as_u64().expect("a position"), Ordering::Release);
    // One more, so that readers that wait for an event see that they have all.
    client.run_to_end(&workflows::sequence("p16", 1), json!({"n": 1})).await;
    let mut connected = 0;
    for reader in readers {
        connected += system_tests::within("a reader", reader).await.expect("no gap, no repetition");
    }
    let least = READERS as u64 * if setting == Setting::Distributed { 2 } else { blows };
    assert!(connected >= least, "the readers connected only {connected} times");
    platform.kill_9().await;
    platform.audit(&book).await;
}

/// One task that is done again and again, and whose result is only kept in events.
fn heavy() -> Value {
    json!({
        "name": "p16-heavy",
        "start": "zero",
        "nodes": {
            "zero": {"compute": {"state.n": 0}},
            "step": {
                "action": {"kind": "mock", "with": {"result": "x".repeat(HEAVY_BYTES)}},
                "output": {"state.n": "${state.n + 1}"}
            }
        },
        "transitions": [
            {"from": "zero", "to": "step"},
            {"from": "step", "to": "step", "when": "state.n < input.tasks", "max_iterations": TASKS}
        ],
        "output": {"n": "${state.n}"}
    })
}

/// Has so many tasks done; answers a position at their end.
async fn tasks(client: &Client, tasks: usize) -> u64 {
    let view = client.run_to_end(&json!("p16-heavy"), json!({"tasks": tasks})).await;
    assert_eq!(view["output"], json!({"n": tasks}), "{view}");
    view["position"].as_u64().expect("a run's view has a position")
}

async fn a_reader_that_hardly_reads_costs_nothing(setting: Setting) {
    let mut platform = crate::platform_in(setting).await;
    let client = platform.client();
    client.post("/workflow-definitions", &heavy()).await.ok();
    let mut slow = client.open_unread("/events").await;
    let taking = tokio::spawn(async move {
        let mut pace = Pace::new(16);
        loop {
            pace.pause_exactly(100).await;
            slow.read_u8().await.expect("the stream is open");
        }
    });
    tasks(&client, FILLING).await;
    let names = platform.names();
    let before: Vec<u64> = names.iter().map(|name| platform.memory(name)).collect();
    let last = tasks(&client, TASKS).await;
    for (name, before) in names.iter().zip(before) {
        let grown = platform.memory(name).saturating_sub(before);
        eprintln!("{name} has grown by {} KiB", grown / 1024);
        let kept = if name.starts_with("coordinator") { KEPT_BYTES } else { 0 };
        assert!(grown < GROWTH_BYTES + kept, "{name} has grown by {grown} bytes");
    }
    assert!(!taking.is_finished(), "the slow reader was cut off");
    taking.abort();
    // And one that reads as it should gets all of it, from the first to the last.
    let mut follower = client.follow("/events", None).await;
    for due in 1..=last {
        let sent = follower.next().await.expect("the stream is open");
        assert_eq!(sent.data["position"], due);
    }
    platform.kill_9().await;
    platform.records().await.check();
}

/// Runs of each team beside each other.
const OF_A_TEAM: usize = 8;
const RED: &str = "label=team%3Dred";

/// Reads events of the red team up to a position that is told later, and comes back with its cursor
/// after every few. Answers their positions.
async fn of_the_red_team(client: Client, last: Arc<AtomicU64>) -> Vec<u64> {
    let (mut seen, mut cursor) = (Vec::new(), None::<String>);
    let path = format!("/events?{RED}");
    while seen.last().is_none_or(|seen| *seen < last.load(Ordering::Acquire)) {
        let Some(mut follower) = client.try_follow(&path, cursor.as_deref()).await else {
            Pace::new(1).pause_exactly(50).await;
            continue;
        };
        for _ in 0..7 {
            let Some(sent) = follower.next().await.filter(|sent| sent.name != "error") else {
                break;
            };
            seen.push(sent.data["position"].as_u64().expect("an event has a position"));
            cursor = Some(sent.id);
            if seen.last().is_some_and(|seen| *seen >= last.load(Ordering::Acquire)) {
                break;
            }
        }
    }
    seen
}

/// Starts runs of both teams, each with a child that has its team as a label, and one that hasn't.
async fn teams(client: &Client) {
    for number in 0..OF_A_TEAM {
        for team in ["red", "blue"] {
            let body = json!({"definition": "p16-above", "input": {"team": team, "n": number},
                "labels": {"team": team, "n": number.to_string()}});
            client.post("/runs", &body).await.ok();
        }
    }
}

async fn readers_of_a_label_resume_and_see_its_runs_whole(setting: Setting) {
    let mut platform = crate::platform_in(setting).await;
    let client = platform.client();
    client.post("/workflow-definitions", &workflows::sequence("p16-below", 2)).await.ok();
    let below = |labels: Value| {
        let input = json!({"n": 1});
        json!({"workflow": {"definition": "p16-below", "input": input, "labels": labels}})
    };
    let above = json!({
        "name": "p16-above", "start": "same",
        "nodes": {"same": below(json!({})), "other": below(json!({"team": null}))},
        "transitions": [{"from": "same", "to": "other"}]
    });
    client.post("/workflow-definitions", &above).await.ok();
    let last = Arc::new(AtomicU64::new(u64::MAX));
    let readers: Vec<_> = (0..READERS)
        .map(|_| tokio::spawn(of_the_red_team(client.clone(), Arc::clone(&last))))
        .collect();
    teams(&client).await;
    let name = if setting == Setting::Distributed { "projector-1" } else { "platform" };
    platform.kill_one(name).await;
    platform.start_one(name).await;
    teams(&client).await;
    client.all_ended().await;
    // Forks have labels of their own: of one team, and of the other.
    let runs = client.get(&format!("/runs?{RED}&definition=p16-above&limit=1")).await;
    let red = runs["items"][0]["id"].as_str().expect("a run").to_owned();
    for labels in [Value::Null, json!({"team": "blue"})] {
        let mut body = json!({"at": 1});
        if labels.is_object() {
            body["labels"] = labels;
        }
        let fork = client.post(&format!("/runs/{red}/fork"), &body).await.ok();
        client.end_of(fork["id"].as_str().expect("a run")).await;
    }
    let body = json!({"definition": "p16-below", "input": {"n": 1}, "labels": {"team": "red"}});
    let run = client.post("/runs", &body).await.ok();
    let ended = client.end_of(run["id"].as_str().expect("a run")).await;
    let end = ended["position"].as_u64().expect("a position");

    let runs = client.get(&format!("/runs?{RED}&limit=200&min_position={end}")).await;
    let runs = runs["items"].as_array().expect("a list");
    let ids: BTreeSet<_> = runs.iter().filter_map(|run| run["id"].as_str()).collect();
    assert_eq!(ids.len(), 2 * 2 * OF_A_TEAM + 2, "a child of each, a fork, and the last one");
    let is_due = |event: &&Value| event["aggregate_id"].as_str().is_some_and(|id| ids.contains(id));
    let all = client.all_events().await;
    let due = all.iter().filter(is_due).filter_map(|event| event["position"].as_u64());
    let due: Vec<u64> = due.collect();
    assert_eq!(due.last(), Some(&end));
    last.store(end, Ordering::Release);
    // Over a WebSocket, from the middle into live; and as a page on the command line.
    let middle = client.get(&format!("/events?{RED}&limit=20")).await;
    let mut socket = client.follow_socket(RED, middle["cursor"].as_str()).await;
    for due in &due[20..] {
        assert_eq!(socket.next().await.expect("an event").data["position"], *due);
    }
    let blue = json!({"definition": "p16-below", "input": {"n": 1}, "labels": {"team": "blue"}});
    client.post("/runs", &blue).await.ok();
    let run = client.post("/runs", &body).await.ok()["id"].clone();
    for sequence in 1..=3 {
        let told = socket.next().await.expect("an event").data;
        assert_eq!((&told["aggregate_id"], &told["sequence"]), (&run, &json!(sequence)));
    }
    // That one has also woken the readers that had all before they knew.
    for reader in readers {
        let seen = system_tests::within("a reader", reader).await.expect("it reads");
        assert_eq!(seen[..due.len()], due);
        assert!(seen.len() <= due.len() + 1, "{seen:?}");
    }
    let arguments = ["events", "list", "--label", "team=red", "--limit", "1000", "-o", "json"];
    let (status, told, talk) =
        platform.wonder(&[&arguments[..], &["--server", platform.gateway()]].concat()).await;
    assert!(status.success(), "{told}{talk}");
    let told: Value = serde_json::from_str(&told).expect("JSON");
    let told = told["items"].as_array().expect("a page").iter();
    let told: Vec<u64> = told.filter_map(|event| event["position"].as_u64()).collect();
    assert_eq!(told[..due.len()], due);
    platform.kill_9().await;
    platform.records().await.check();
}
