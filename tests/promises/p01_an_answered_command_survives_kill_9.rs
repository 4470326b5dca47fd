//! Promise 01: a command that was answered 2xx survives `kill -9`.
//!
//! Clients write down what was acknowledged while the process is killed again and again. It fails
//! where an answer goes out before its commit (the answer in the coordinator's `committed`, or the
//! committer's reply before `commit`), where a repeated key isn't recognised after a restart (the
//! inbox row in the append transaction), and where open runs aren't taken up again (`recover`).

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use reqwest::Method;
use serde_json::{Value, json};
use system_tests::{Client, Pace, Records, Setting, wait_for, within, workflows};

system_tests::in_both_settings!(
    what_was_acknowledged_stands_in_the_journal_exactly_once_and_completes,
);

/// How often the process is killed.
const KILLS: usize = 10;
/// Clients that start runs at the same time.
const CLIENTS: usize = 4;
/// The longest time that the process is left alone, in milliseconds.
const ALONE_MS: u64 = 500;

/// What clients wrote down: the order's number, and the run that was acknowledged for it.
type Book = Arc<Mutex<HashMap<u64, String>>>;

/// Places orders, each under its own key, until it is told to stop. An order that wasn't answered
/// is placed again under its key until it is.
async fn client(client: Client, next: Arc<AtomicU64>, stop: Arc<AtomicBool>, book: Book) {
    while !stop.load(Ordering::Acquire) {
        let order = next.fetch_add(1, Ordering::AcqRel);
        let (definition, input) = match order % 2 {
            0 => ("p01-sequence", json!({"n": order})),
            _ => ("p01-fan-out", json!({"items": [order, 2, 3, 4, 5]})),
        };
        let label = order.to_string();
        let body = json!({"definition": definition, "input": input, "labels": {"order": label}});
        let answer = wait_for("an order to be answered", || async {
            let request = client.request(Method::POST, "/runs").json(&body);
            let request = request.header("idempotency-key", format!("order-{order}"));
            let answer = client.send(request).await.ok()?;
            // A process that shuts down or starts up may say so; that is no acknowledgement.
            (answer.status != 503).then_some(answer)
        })
        .await;
        let id = answer.ok()["id"].as_str().expect("a run's id").to_owned();
        book.lock().expect("nobody panicked").insert(order, id);
    }
}

fn label(records: &Records, run_id: &str) -> String {
    let payload = &records.of_run(run_id)[0].payload;
    let payload: Value = serde_json::from_slice(payload).expect("an event's payload is JSON");
    payload["labels"]["order"].as_str().unwrap_or_default().to_owned()
}

async fn what_was_acknowledged_stands_in_the_journal_exactly_once_and_completes(setting: Setting) {
    let mut platform = crate::platform_in(setting).await;
    let api = platform.client();
    for definition in
        [workflows::sequence("p01-sequence", 3), workflows::fan_out("p01-fan-out", "20ms")]
    {
        api.post("/workflow-definitions", &definition).await.ok();
    }
    let (stop, next, book) = (Arc::default(), Arc::default(), Book::default());
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            tokio::spawn(client(
                api.clone(),
                Arc::clone(&next),
                Arc::clone(&stop),
                Arc::clone(&book),
            ))
        })
        .collect();
    let mut pace = Pace::new(1);
    for _ in 0..KILLS {
        pace.pause(ALONE_MS).await;
        platform.kill_9().await;
        platform.restart().await;
    }
    stop.store(true, Ordering::Release);
    for client in clients {
        within("a client to finish", client).await.expect("a client must not panic");
    }
    platform.kill_9().await;
    platform.restart().await;
    api.all_ended().await;
    platform.stop().await;

    let records = platform.records().await;
    records.check();
    let book = book.lock().expect("nobody panicked").clone();
    assert!(book.len() > KILLS, "only {} orders were acknowledged", book.len());
    let mut by_order: HashMap<String, Vec<String>> = HashMap::new();
    for run_id in records.run_ids() {
        by_order.entry(label(&records, &run_id)).or_default().push(run_id.clone());
        let counts = records.count(&run_id);
        assert_eq!(counts.get("run_completed"), Some(&1), "{run_id} ended as {counts:?}");
    }
    for (order, run_id) in &book {
        let runs = by_order.get(&order.to_string()).map(Vec::as_slice).unwrap_or_default();
        assert_eq!(runs, std::slice::from_ref(run_id), "order {order} was acknowledged as one run");
    }
}
