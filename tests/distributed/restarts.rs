//! Every process is replaced, one after the other, and no client notices.
//!
//! It fails where a process takes what it can't finish, where an edge closes its port before it
//! has said so, where a coordinator keeps its shards to its end, and where anything makes a process
//! end later than an orchestrator waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use system_tests::{Client, Shape, Traffic, workflows};

/// After which orchestrators kill.
const STOP: Duration = Duration::from_secs(25);

async fn strictly(client: &Client, request: RequestBuilder) -> Value {
    client.send(request).await.expect("every request is answered").ok()
}

/// Starts runs, waits for their ends, reads lists, and takes no answer but the right one. Answers
/// how many requests were answered.
async fn strict(client: Client, stop: Arc<AtomicBool>) -> usize {
    let mut answered = 0;
    while !stop.load(Ordering::Acquire) {
        let body = json!({"definition": "restarts", "input": {"n": answered}});
        let request = client.request(Method::POST, "/runs").header("prefer", "wait=30");
        let mut ended = strictly(&client, request.json(&body)).await;
        // A gateway that leaves ends waits early, as if their time were up.
        for _ in 0..2 {
            if ended["status"] == "running" {
                let run = format!("/runs/{}", ended["id"].as_str().expect("an id"));
                let request = client.request(Method::GET, &run).header("prefer", "wait=30");
                ended = strictly(&client, request).await;
            }
        }
        assert_eq!(ended["status"], "completed", "{ended}");
        client.get("/runs?limit=5").await;
        answered += 2;
    }
    answered
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_fails_no_request() {
    let shape = Shape::whole().with_processes("projector", 2);
    let mut platform = crate::platform(shape).await;
    let client = platform.client();
    client.post("/workflow-definitions", &workflows::sequence("restarts", 3)).await.ok();
    let behind_balancer = client.with_fresh_connections().behind_balancer();
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> =
        (0..3).map(|_| tokio::spawn(strict(behind_balancer.clone(), Arc::clone(&stop)))).collect();
    for name in platform.names() {
        let took = platform.stop_one(&name).await;
        eprintln!("{name} stopped in {took:?}");
        assert!(took < STOP, "{name} took {took:?} to stop");
        platform.start_one(&name).await;
        platform.ready().await;
    }
    stop.store(true, Ordering::Release);
    for client in clients {
        let answered = client.await.expect("no request may fail");
        assert!(answered > 20, "only {answered} requests were answered");
    }
    platform.stop().await;
    platform.records().await.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_process_stops_in_time_whatever_is_under_way() {
    let mut platform = crate::platform(Shape::whole()).await;
    let client = platform.client();
    // Tasks that don't end, streams that are open, and requests that wait.
    let endless = workflows::fan_out("restarts-endless", "10m");
    let run_id = client.start(&endless, json!({"items": [1, 2, 3, 4, 5, 6, 7, 8]})).await;
    let stream = client.follow("/events", None).await;
    let (waiting, path) = (client.clone(), format!("/runs/{run_id}"));
    let waiting = tokio::spawn(async move {
        let request = waiting.request(Method::GET, &path).header("prefer", "wait=60");
        waiting.send(request).await.ok()
    });
    let traffic = Traffic::start(&client, 4).await;
    traffic.progress(20).await;
    for (name, took) in platform.stop_at_once().await {
        eprintln!("{name} stopped in {took:?}");
        assert!(took < STOP, "{name} took {took:?} to stop");
    }
    drop(stream);
    waiting.await.expect("it must not panic");
    platform.restart().await;
    client.post(&format!("/runs/{run_id}/cancel"), &json!({})).await.ok();
    crate::finish(&mut platform, traffic).await;
}
