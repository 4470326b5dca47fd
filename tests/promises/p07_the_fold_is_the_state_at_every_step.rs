//! Promise 07: fold = memory = snapshot + rest, at every step.
//!
//! Random graphs run once in peace and once under `kill -9`. Both must give the same output, and
//! the state that the platform answers after each event must be the fold of the events up to it.
//! It fails where a run taken up again isn't what its events say (a snapshot with a field that
//! isn't folded, an effect that isn't owed any more, a value that changes on its way through the
//! journal), and where the read side folds by code of its own.

use serde_json::{Value, json};
use system_tests::{Client, Pace, Platform, Records};

mod graphs;

/// Random definitions.
const GRAPHS: u64 = 14;
/// How often the process is killed.
const KILLS: usize = 7;
/// Tasks of the run that is long enough for several snapshots.
const LONG: u64 = 650;

/// One node that is run again and again: two events each time, so that snapshots are taken.
fn long() -> Value {
    json!({
        "name": "p07-long",
        "start": "zero",
        "nodes": {
            "zero": {"compute": {"state.n": 0}},
            "step": {
                "action": {"kind": "transform", "with": {"value": "${input.n + 1}"}},
                "input": {"n": "${state.n}"},
                "output": {"state.n": "${result}"}
            }
        },
        "transitions": [
            {"from": "zero", "to": "step"},
            {"from": "step", "to": "step", "when": "state.n < input.steps", "max_iterations": LONG}
        ],
        "output": {"n": "${state.n}"}
    })
}

/// Starts one run of each definition; answers their ids.
async fn start_all(client: &Client, definitions: &[Value]) -> Vec<String> {
    let mut runs = Vec::new();
    for definition in definitions {
        runs.push(client.start(definition, json!({"steps": LONG, "n": 1})).await);
    }
    runs
}

async fn in_peace(definitions: &[Value]) -> Vec<(Value, Value)> {
    let platform = crate::platform().await;
    let client = platform.client();
    let mut ends = Vec::new();
    for run_id in start_all(&client, definitions).await {
        let view = client.end_of(&run_id).await;
        ends.push((view["status"].clone(), view["output"].clone()));
    }
    ends
}

async fn under_kills(platform: &mut Platform, definitions: &[Value]) -> Vec<String> {
    let client = platform.client();
    let mut pace = Pace::new(7);
    let runs = start_all(&client, definitions).await;
    for _ in 0..KILLS {
        pace.pause(120).await;
        platform.kill_9().await;
        platform.restart().await;
    }
    runs
}

#[tokio::test(flavor = "multi_thread")]
async fn random_graphs_under_kills_end_as_in_peace_and_are_their_fold_after_each_event() {
    let mut definitions: Vec<Value> = (0..GRAPHS).map(graphs::random).collect();
    definitions.push(long());
    let ends = in_peace(&definitions).await;
    let mut platform = crate::platform().await;
    let client = platform.client();
    let runs = under_kills(&mut platform, &definitions).await;
    for ((run_id, end), definition) in runs.iter().zip(&ends).zip(&definitions) {
        let view = client.end_of(run_id).await;
        let found = (view["status"].clone(), view["output"].clone());
        assert_eq!(found, *end, "{run_id} of {definition}");
        assert_eq!(view["status"], "completed", "{run_id}: {}", view["error"]);
    }
    for run_id in &runs {
        let verified = client.post(&format!("/runs/{run_id}/verify"), &json!({})).await.ok();
        assert_eq!(verified["verified"], true, "{verified}");
        assert_eq!(verified["events"], client.events(run_id).await.len(), "{run_id}");
    }
    // The states as the platform answers them, and then the file that nobody has open.
    let mut answered = Vec::new();
    for run_id in &runs {
        let last = client.events(run_id).await.len() as u64;
        // Of the long run every eleventh, on both sides of each snapshot among them.
        let each = if last > 600 { 11 } else { 1 };
        for sequence in (1..=last).step_by(each) {
            let state = client.get(&format!("/runs/{run_id}/state?at={sequence}")).await;
            answered.push((run_id, sequence, state));
        }
    }
    platform.stop().await;
    let records = Records::read(&platform.data_dir()).await;
    records.check();
    let mut steps = records.fold(&runs[0]);
    let mut of = &runs[0];
    for (run_id, sequence, state) in &answered {
        if of != *run_id {
            (steps, of) = (records.fold(run_id), run_id);
        }
        let step = &steps[usize::try_from(*sequence).expect("a small number") - 1];
        assert_eq!(state["sequence"], *sequence, "{run_id}");
        let fold = serde_json::to_value(&step.run).expect("a run is JSON");
        assert_eq!(state["state"], fold, "{run_id} after event {sequence}");
        assert_eq!(state["status"], json!(step.run.status()), "{run_id} at {sequence}");
    }
    assert!(records.of_run(&runs[runs.len() - 1]).len() > 1_000, "no snapshot was taken");
}
