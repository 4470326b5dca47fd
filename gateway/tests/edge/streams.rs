//! Event streams: history, resume, ends and errors.

use axum::body::Body;
use axum::http::Request;
use futures::StreamExt as _;
use gateway::AuthConfig;
use serde_json::{Value, json};

use crate::fakes::{Client, gateway as edge, home, run_id};

const STREAM: (&str, &str) = ("accept", "text/event-stream");

/// `(id, event, data)` of each message.
fn messages(text: &str) -> Vec<(String, String, Value)> {
    let field = |block: &str, name: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.unwrap_or_default().to_owned()
    };
    let blocks = text.split("\n\n").filter(|block| block.contains("data: "));
    blocks
        .map(|block| {
            let data = serde_json::from_str(&field(block, "data")).expect("json");
            (field(block, "id"), field(block, "event"), data)
        })
        .collect()
}

fn ended_run() -> Client {
    let client = Client::dev();
    for event in ["run_started", "task_succeeded", "run_completed"] {
        client.world.record(home(), event);
    }
    client
}

fn path() -> String {
    format!("/api/v1/runs/{}/events", run_id())
}

#[tokio::test]
async fn a_runs_stream_gives_its_history_and_ends_with_the_run() {
    let client = ended_run();
    let answer = client.call("GET", &path(), &[STREAM], "").await;
    assert_eq!(answer.header("content-type"), "text/event-stream");
    assert!(answer.text.contains("retry: 2000"));
    let all = messages(&answer.text);
    let names: Vec<_> = all.iter().map(|(id, event, _)| (id.as_str(), event.as_str())).collect();
    assert_eq!(
        names,
        [
            ("00000007:1", "run_started"),
            ("00000007:2", "task_succeeded"),
            ("00000007:3", "run_completed"),
            ("00000007:3", "end"),
        ]
    );
    assert_eq!(all[1].2["payload"]["text"], "a\nb");
}

#[tokio::test]
async fn a_reader_goes_on_where_it_stopped() {
    let client = ended_run();
    let header = [STREAM, ("last-event-id", "00000007:2")];
    let by_header = client.call("GET", &format!("{}?after=00000007:1", path()), &header, "").await;
    assert_eq!(messages(&by_header.text)[0].0, "00000007:3");
    let query = format!("{}?after=00000007:2", path());
    let by_query = client.call("GET", &query, &[STREAM], "").await;
    assert_eq!(messages(&by_query.text).len(), 2);
    let seen = [STREAM, ("last-event-id", "00000007:3")];
    let over = client.call("GET", &path(), &seen, "").await;
    let over = messages(&over.text);
    assert_eq!((over.len(), over[0].1.as_str()), (1, "end"));
    let bad = client.call("GET", &path(), &[STREAM, ("last-event-id", "x")], "").await;
    assert_eq!(bad.code(), "invalid_header");
}

#[tokio::test]
async fn a_filter_by_type_still_ends_with_the_run() {
    let client = ended_run();
    let query = format!("{}?type=task_succeeded", path());
    let answer = client.call("GET", &query, &[STREAM], "").await;
    let names: Vec<_> = messages(&answer.text).into_iter().map(|(_, event, _)| event).collect();
    assert_eq!(names, ["task_succeeded", "end"]);
}

#[tokio::test]
async fn a_lagging_reader_gets_a_problem_and_is_cut_off() {
    let client = Client::dev();
    client.world.record(home(), "run_started");
    *client.world.lag.lock().expect("lock") = true;
    let answer = client.call("GET", "/api/v1/events", &[STREAM], "").await;
    let all = messages(&answer.text);
    let last = all.last().expect("a message");
    assert_eq!((last.1.as_str(), &last.2["code"]), ("error", &json!("reader_lagged")));
    assert_eq!(last.2["status"], 429);
}

#[tokio::test]
async fn a_shutdown_ends_open_streams() {
    let client = Client::dev();
    client.world.record(home(), "run_started");
    client.shutdown.cancel();
    let answer = client.call("GET", "/api/v1/events", &[STREAM], "").await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn streams_have_a_limit_and_give_their_place_back() {
    let world = std::sync::Arc::new(crate::fakes::World::default());
    world.record(home(), "run_started");
    let mut gateway = edge(&world, AuthConfig::Dev { workspace_id: home() });
    gateway.config.max_streams = 1;
    let router = gateway::router(gateway);
    let open = async || {
        let request = Request::get("/api/v1/events").header("host", "localhost");
        let request = request.header(STREAM.0, STREAM.1).body(Body::empty()).expect("a request");
        tower::ServiceExt::oneshot(router.clone(), request).await.expect("an answer")
    };
    let first = open().await;
    let status = first.status();
    let mut body = first.into_body().into_data_stream();
    let hello = body.next().await.expect("a chunk").expect("bytes");
    assert_eq!((status.as_u16(), hello.is_empty()), (200, false));
    assert_eq!(open().await.status(), 429);
    drop(body);
    assert_eq!(open().await.status(), 200);
}

#[tokio::test]
async fn pages_hold_the_same_envelopes_and_say_where_to_go_on() {
    let client = ended_run();
    let page = client.get(&format!("{}?limit=2", path())).await.json();
    assert_eq!((&page["more"], &page["cursor"]), (&json!(true), &json!("00000007:2")));
    let rest = client.get(&format!("{}?after=00000007:2", path())).await.json();
    assert_eq!(rest["items"][0]["event_type"], "run_completed");
    let none = domain::ids::RunId::derived("", "none");
    let missing = client.get(&format!("/api/v1/runs/{none}/events")).await;
    assert_eq!(missing.code(), "not_found");
}

#[tokio::test]
async fn a_cursor_beyond_the_last_event_is_refused_before_a_stream_begins() {
    let client = ended_run();
    for path in [path(), "/api/v1/events".to_owned()] {
        for position in ["99999999999", "9223372036854775808", "18446744073709551615"] {
            let cursor = format!("00000007:{position}");
            let header = [STREAM, ("last-event-id", cursor.as_str())];
            let by_header = client.call("GET", &path, &header, "").await;
            assert_eq!((by_header.status.as_u16(), &*by_header.code()), (400, "invalid_cursor"));
            let query = format!("{path}?after={cursor}");
            assert_eq!(client.call("GET", &query, &[STREAM], "").await.code(), "invalid_cursor");
            assert_eq!(client.get(&query).await.code(), "invalid_cursor");
        }
    }
}

#[tokio::test]
async fn who_weighs_streams_with_zero_gets_a_page() {
    let client = ended_run();
    for accept in ["text/event-stream;q=0", "text/event-stream; Q=0.000, application/json"] {
        let answer = client.call("GET", &path(), &[("accept", accept)], "").await;
        assert_eq!(answer.header("content-type"), "application/json", "{accept}");
    }
    let some = [("accept", "application/json, text/event-stream;q=0.1")];
    let answer = client.call("GET", &path(), &some, "").await;
    assert_eq!(answer.header("content-type"), "text/event-stream");
}

/// A run of which the read model knows three events, and that has gone on.
fn run_that_goes_on() -> Client {
    let client = Client::dev();
    let events = ["run_started", "token_routed", "token_routed", "task_succeeded", "run_completed"];
    events.iter().for_each(|event| client.world.record(home(), event));
    client
}

#[tokio::test]
async fn what_goes_on_stands_between_events_for_who_asks_and_moves_no_cursor() {
    let client = run_that_goes_on();
    client.world.tell(run_id(), &["Hel", "lo\n."]);
    let query = format!("{}?ephemeral=true&after=00000007:1", path());
    let all = messages(&client.call("GET", &query, &[STREAM], "").await.text);
    let names: Vec<_> = all.iter().map(|(id, event, _)| (id.as_str(), event.as_str())).collect();
    assert_eq!(
        names,
        [
            ("00000007:2", "token_routed"),
            ("00000007:3", "token_routed"),
            ("", "ephemeral"),
            ("", "ephemeral"),
            ("00000007:4", "task_succeeded"),
            ("00000007:5", "run_completed"),
            ("00000007:5", "end"),
        ]
    );
    let (first, second) = (&all[2].2, &all[3].2);
    assert_eq!(
        first["payload"],
        json!({"node": "ask", "token": 3, "attempt": 2, "answer": 1, "index": 0, "text": "Hel"})
    );
    assert_eq!((&first["ephemeral"], &first["event_type"]), (&json!(true), &json!("llm_delta")));
    assert_eq!((&first["position"], &first["cursor"]), (&json!(3), &json!("00000007:3")));
    assert_eq!(first["aggregate_id"], run_id().to_string());
    assert_eq!((&second["payload"]["text"], second.get("id")), (&json!("lo\n."), None));
    let filters = std::mem::take(&mut *client.world.listened.lock().expect("lock"));
    assert_eq!(filters.len(), 1);
    assert_eq!((filters[0].workspace_id, filters[0].run_id), (home(), Some(run_id())));

    client.world.tell(run_id(), &["never told"]);
    let without = client.call("GET", &path(), &[STREAM], "").await;
    assert!(!without.text.contains("ephemeral"));
    assert!(client.world.listened.lock().expect("lock").is_empty(), "nobody asked to listen");
}

#[tokio::test]
async fn what_goes_on_holds_events_up_only_shortly_and_only_those_of_its_run() {
    let client = run_that_goes_on();
    client.world.tell(run_id(), &["x"; 1_000]);
    let query = format!("{}?ephemeral=true", path());
    let all = messages(&client.call("GET", &query, &[STREAM], "").await.text);
    let events: Vec<_> = (0..all.len()).filter(|at| all[*at].1 != "ephemeral").collect();
    assert_eq!(events, [0, 1, 2, 3 + 64, 4 + 2 * 64, 5 + 2 * 64]);

    let other = domain::ids::RunId::derived("", "another run");
    client.world.tell(other, &["y"; 10]);
    let query = "/api/v1/events?ephemeral=true";
    let names: Vec<_> = told_until(&client, query, 10).await;
    let names: Vec<_> = names.into_iter().map(|(_, event, _)| event).collect();
    assert_eq!((&*names[4], &*names[5]), ("run_completed", "ephemeral"));
}

/// What a stream that doesn't end tells until there are so many ephemeral messages.
async fn told_until(
    client: &Client,
    query: &str,
    ephemerals: usize,
) -> Vec<(String, String, Value)> {
    let request = Request::get(query).header("host", "localhost").header(STREAM.0, STREAM.1);
    let request = request.body(Body::empty()).expect("a request");
    let answer = tower::ServiceExt::oneshot(client.router.clone(), request).await;
    let mut body = answer.expect("an answer").into_body().into_data_stream();
    let mut text = String::new();
    while text.matches("event: ephemeral").count() < ephemerals {
        let chunk = body.next().await.expect("a chunk").expect("bytes");
        text.push_str(std::str::from_utf8(&chunk).expect("text"));
    }
    messages(&text)
}

#[tokio::test]
async fn labels_narrow_pages_streams_and_what_goes_on() {
    let client = run_that_goes_on();
    let page = async |query: &str| {
        let page = client.get(&format!("/api/v1/events?{query}")).await;
        page.json()["items"].as_array().map_or(0, Vec::len)
    };
    assert_eq!(page("label=team%3Dred").await, 5);
    assert_eq!(page("label=team%3Dblue").await, 0);
    assert_eq!(page("label=team%3Dred&label=x%3D1").await, 0);

    let other = domain::ids::RunId::derived("", "another run");
    // Before an event of the run, and where its events are over.
    for after in ["00000007:4", "00000007:5"] {
        client.world.tell(other, &["not told"; 5]);
        client.world.tell(run_id(), &["told"; 3]);
        let query = format!("/api/v1/events?ephemeral=true&label=team%3Dred&after={after}");
        let all = told_until(&client, &query, 3).await;
        let told = all.iter().filter(|(_, event, _)| event == "ephemeral");
        assert!(told.clone().all(|(_, _, message)| message["payload"]["text"] == "told"));
        assert_eq!(told.count(), 3);
    }
    for query in ["label=team", "label=%3Dred", "label="] {
        let query = format!("/api/v1/events?{query}");
        assert_eq!(client.get(&query).await.code(), "invalid_parameter", "{query}");
    }
}

#[tokio::test]
async fn what_goes_on_is_for_live_streams_of_runs() {
    let client = ended_run();
    let of_run = path();
    for (query, headers) in [
        (format!("{of_run}?ephemeral=true"), &[][..]),
        (format!("{of_run}?ephemeral=true&speed=2"), &[STREAM][..]),
        (format!("{of_run}?ephemeral=maybe"), &[STREAM][..]),
        ("/api/v1/events?ephemeral=true&aggregate_type=workflow".to_owned(), &[STREAM][..]),
        ("/api/v1/events?project_id=x".to_owned(), &[STREAM][..]),
    ] {
        let refused = client.call("GET", &query, headers, "").await;
        assert_eq!(refused.code(), "invalid_parameter", "{query}");
    }
}
