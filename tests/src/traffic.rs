//! Clients that start runs, follow them to their ends and write down what they were told, while
//! somebody else breaks things.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::book::Book;
use crate::client::{Answer, Client};
use crate::wait::{Pace, wait_within};
use crate::workflows;

/// How long a client waits for an answer or an end, whatever is broken meanwhile.
const PATIENCE: Duration = Duration::from_secs(120);

/// What clients are told, by the names in their book.
pub const OPS: [&str; 4] = ["start", "cancel", "refused", "ended"];

/// Running clients.
#[derive(Debug)]
pub struct Traffic {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
    book: Book,
}

/// What one client needs.
#[derive(Debug, Clone)]
struct Session {
    client: Client,
    book: Book,
    stop: Arc<AtomicBool>,
    next: Arc<AtomicU64>,
}

/// What an order asks for, and what must come of it.
struct Order {
    definition: &'static str,
    input: Value,
    expected: Expected,
}

enum Expected {
    Output(Value),
    Refusal,
    /// It runs until it is cancelled.
    Cancel,
}

impl Traffic {
    /// Publishes what the clients run, and starts so many of them. Each has one run under way.
    pub async fn start(client: &Client, clients: u64) -> Self {
        let endless = workflows::fan_out("traffic-endless", "10m");
        for definition in [
            workflows::sequence("traffic-sequence", 4),
            workflows::fan_out("traffic-fan-out", "30ms"),
            workflows::flaky("traffic-flaky", 2, 4),
            endless,
        ] {
            let publish = || client.request(Method::POST, "/workflow-definitions");
            answered("a definition", client, || publish().json(&definition)).await.ok();
        }
        let session = Session {
            client: client.clone(),
            book: Book::default(),
            stop: Arc::default(),
            next: Arc::default(),
        };
        let spawned = (0..clients).map(|number| tokio::spawn(session.clone().run(number)));
        Self { clients: spawned.collect(), stop: session.stop, book: session.book }
    }

    /// What the clients were told so far.
    pub fn book(&self) -> &Book {
        &self.book
    }

    /// Returns when so many more runs were seen to end.
    pub async fn progress(&self, runs: usize) {
        let wanted = self.book.count("ended") + runs;
        wait_within(PATIENCE, &format!("{runs} more runs to end"), || async {
            (self.book.count("ended") >= wanted).then_some(())
        })
        .await;
    }

    /// Returns when the clients have seen each kind of answer: which orders they place is drawn,
    /// and a few may all be of one kind.
    pub async fn variety(&self) {
        for op in OPS {
            let has_come = || async { (self.book.count(op) > 0).then_some(()) };
            wait_within(PATIENCE, &format!("a client to see a {op}"), has_come).await;
        }
    }

    /// Lets the clients finish what they have begun; answers what they were told.
    ///
    /// # Panics
    /// Where one of them saw something that must not be.
    pub async fn stop(self) -> Book {
        self.stop.store(true, Ordering::Release);
        for client in self.clients {
            match tokio::time::timeout(2 * PATIENCE, client).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => std::panic::resume_unwind(error.into_panic()),
                Err(_) => panic!("waited in vain for a client to finish"),
            }
        }
        self.book
    }
}

impl Session {
    async fn run(self, number: u64) {
        let mut pace = Pace::new(number);
        while !self.stop.load(Ordering::Acquire) {
            let number = self.next.fetch_add(1, Ordering::AcqRel);
            self.place(number, order(number, pace.below(10))).await;
        }
    }

    async fn place(&self, number: u64, order: Order) {
        let (key, labels) = (format!("order-{number}"), json!({"order": number.to_string()}));
        let Order { definition, input, expected } = order;
        let body = json!({"definition": definition, "input": input, "labels": labels});
        let answer = self.command(&key, "/runs", &body).await;
        self.book.started(&key, &labels, &answer);
        if matches!(expected, Expected::Refusal) {
            assert_eq!(answer.status, 422, "{}", answer.text);
            return;
        }
        let receipt = answer.ok();
        let run_id = receipt["id"].as_str().expect("a run's id").to_owned();
        let position = receipt["position"].as_u64().expect("a position");
        if matches!(expected, Expected::Cancel) {
            let key = format!("cancel-{number}");
            let path = format!("/runs/{run_id}/cancel");
            let answer = self.command(&key, &path, &json!({"reason": "enough"})).await;
            self.book.cancelled(&key, &answer);
            assert!(answer.is_success(), "{}", answer.text);
        }
        let view = self.end_of(&run_id, position).await;
        self.book.ended(&view);
        match expected {
            Expected::Output(output) => {
                assert_eq!(view["status"], "completed", "{view}");
                assert_eq!(view["output"], output, "{view}");
            }
            Expected::Cancel => assert_eq!(view["status"], "cancelled", "{view}"),
            Expected::Refusal => {}
        }
    }

    async fn command(&self, key: &str, path: &str, body: &Value) -> Answer {
        answered(key, &self.client, || {
            let request = self.client.request(Method::POST, path);
            request.header("idempotency-key", key).json(body)
        })
        .await
    }

    async fn end_of(&self, run_id: &str, position: u64) -> Value {
        let path = format!("/runs/{run_id}?min_position={position}");
        let end = async {
            loop {
                let request = self.client.request(Method::GET, &path).header("prefer", "wait=5");
                let request = || request.try_clone().expect("it has no body");
                let view = answered(run_id, &self.client, request).await.ok();
                if view["ended_at"].is_string() {
                    return view;
                }
            }
        };
        match tokio::time::timeout(PATIENCE, end).await {
            Ok(view) => view,
            Err(_) => panic!(
                "waited {PATIENCE:?} in vain for the end of {run_id}\n{}\n{}",
                self.told(&format!("/runs/{run_id}/state")).await,
                self.told(&format!("/runs/{run_id}/timeline")).await,
            ),
        }
    }

    /// What is answered now, whatever it is.
    async fn told(&self, path: &str) -> String {
        match self.client.send(self.client.request(Method::GET, path)).await {
            Ok(answer) => answer.text,
            Err(error) => error.to_string(),
        }
    }
}

/// Sends a request until it is answered with more than that nobody can answer it now.
pub async fn answered(what: &str, client: &Client, request: impl Fn() -> RequestBuilder) -> Answer {
    wait_within(PATIENCE, &format!("an answer about {what}"), || async {
        let answer = client.send(request()).await.ok()?;
        (!matches!(answer.status, 429 | 502..=504)).then_some(answer)
    })
    .await
}

fn order(number: u64, kind: u64) -> Order {
    match kind {
        0..=3 => Order {
            definition: "traffic-sequence",
            input: json!({"n": number}),
            expected: Expected::Output(json!({"n": number + 4})),
        },
        4..=6 => {
            let items = [number, 2, 3, 4, 5];
            Order {
                definition: "traffic-fan-out",
                input: json!({"items": items}),
                expected: Expected::Output(json!({"count": items.len(), "items": items})),
            }
        }
        7 => Order {
            definition: "traffic-flaky",
            input: json!({}),
            expected: Expected::Output(json!({})),
        },
        8 => Order {
            definition: "traffic-endless",
            input: json!({"items": [1, 2, 3]}),
            expected: Expected::Cancel,
        },
        _ => Order { definition: "traffic-nowhere", input: json!({}), expected: Expected::Refusal },
    }
}
