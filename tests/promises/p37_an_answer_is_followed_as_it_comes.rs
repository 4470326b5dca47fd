//! Promise 37: what a model answers is told while it answers, to who asks for it, and changes
//! nothing about what is recorded.
//!
//! It fails where a piece comes only with the outcome, where the pieces aren't the text that is
//! recorded, where one stands in the journal, in a page, or in a stream that didn't ask for it or
//! is of another project, and where a stream that goes on after any message misses an event or
//! tells one twice.

use serde_json::{Value, json};
use system_tests::{Client, Platform, Sent, Setting, Shape, Socket, workflows};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

system_tests::in_both_settings!(an_answer_is_followed_as_it_comes);

/// A model that says what the test wants, when it wants.
struct Model {
    listener: TcpListener,
    url: String,
}

/// A request of a worker, being answered.
struct Asked(TcpStream);

impl Model {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/v1", listener.local_addr().expect("an address"));
        Self { listener, url }
    }

    async fn asked(&self) -> Asked {
        let (mut stream, _) =
            system_tests::within("a request", self.listener.accept()).await.expect("a worker");
        let mut request = Vec::new();
        while !request.ends_with(b"}}") {
            let read = stream.read_buf(&mut request).await.expect("a request");
            assert!(read > 0, "the request broke off: {}", String::from_utf8_lossy(&request));
        }
        assert!(String::from_utf8_lossy(&request).contains("\"include_usage\":true"));
        let head =
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
        stream.write_all(head).await.expect("a head");
        Asked(stream)
    }
}

impl Asked {
    async fn send(&mut self, data: &str) {
        // In two parts, cut in the middle: that is how they come.
        let message = format!("data: {data}\n\n");
        let (first, second) = message.as_bytes().split_at(message.len() / 2);
        self.0.write_all(first).await.expect("it is sent");
        self.0.flush().await.expect("it is sent");
        self.0.write_all(second).await.expect("it is sent");
    }

    async fn say(&mut self, text: &str) {
        let chunk = json!({"model": "m-2", "choices": [{"delta": {"content": text}}]});
        self.send(&chunk.to_string()).await;
    }

    async fn end(mut self) {
        let last = json!({"choices": [{"delta": {}, "finish_reason": "stop"}]});
        let usage = json!({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 9}});
        for data in [last.to_string(), usage.to_string(), "[DONE]".to_owned()] {
            self.send(&data).await;
        }
    }
}

fn definition(url: &str) -> Value {
    let model = json!({"provider": "openai", "model": "m", "base_url": url});
    let with = json!({"model": model, "prompt": "Tell me.", "stream": true});
    json!({
        "name": "p37", "start": "ask",
        "nodes": {"ask": {"action": {"kind": "llm", "with": with},
            "output": {"state.said": "${result.text}", "state.usage": "${result.usage}"}}},
        "output": {"said": "${state.said}", "usage": "${state.usage}"},
    })
}

/// What a reader was told until a piece with this text came, and with it.
fn is_piece(sent: &Sent, text: &str) -> bool {
    sent.name == "ephemeral" && sent.data["payload"]["text"] == text
}

/// Checks a whole stream of the run: its events alone, and the text that its pieces come to.
fn check(told: &[Sent]) -> (Vec<&Sent>, String) {
    let (mut events, mut text, mut last) = (Vec::<&Sent>::new(), String::new(), 0);
    for sent in told {
        if sent.name != "ephemeral" {
            assert!(!sent.id.is_empty(), "{sent:?}");
            events.push(sent);
            continue;
        }
        let (data, payload) = (&sent.data, &sent.data["payload"]);
        assert_eq!((&sent.id, &data["ephemeral"]), (&String::new(), &json!(true)));
        let before = events.last().expect("no piece comes before the run's start");
        assert_eq!(data["cursor"], before.id.as_str());
        assert_eq!((&payload["node"], &payload["attempt"]), (&json!("ask"), &json!(1)));
        assert_eq!(payload["index"], last, "pieces are in order, and none is missing");
        assert!(
            events.iter().all(|event| event.name != "task_succeeded"),
            "told after the outcome"
        );
        last += 1;
        text.push_str(payload["text"].as_str().expect("a text"));
    }
    (events, text)
}

async fn an_answer_is_followed_as_it_comes(setting: Setting) {
    let model = Model::start().await;
    let shape = Shape::from(setting).with(&["--allow-private-host", "127.0.0.1"]);
    let platform = Platform::start_as(env!("CARGO_BIN_EXE_wonder"), shape).await;
    let client = platform.client();
    let project = client.get("/projects").await["items"][0]["id"].clone();
    let of_project =
        format!("/events?ephemeral=true&project_id={}", project.as_str().expect("an id"));
    let mut all = client.follow(&of_project, None).await;
    let other = client.post("/projects", &json!({"name": "other"})).await.ok()["id"].clone();
    let of_other = format!("project_id={}&ephemeral=true", other.as_str().expect("an id"));
    let mut others = client.follow_socket(&of_other, None).await;
    let run = client.start(&definition(&model.url), json!({})).await;
    let mut asked = model.asked().await;
    let path = format!("/runs/{run}/events");
    let mut sse = client.follow(&format!("{path}?ephemeral=true"), None).await;
    let query = format!("run_id={run}&ephemeral=true");
    let mut socket = client.follow_socket(&query, None).await;
    let mut plain = client.follow(&path, None).await;

    // Each piece is told before the model says the next.
    let (mut by_sse, mut by_socket, mut by_project) = (Vec::new(), Vec::new(), Vec::new());
    for text in ["Rivers ", "carry ", "sand\n", "🌊."] {
        asked.say(text).await;
        while !by_sse.last().is_some_and(|sent| is_piece(sent, text)) {
            by_sse.push(sse.next().await.expect("a piece"));
        }
        while !by_socket.last().is_some_and(|sent| is_piece(sent, text)) {
            by_socket.push(socket.next().await.expect("a piece"));
        }
        while !by_project.last().is_some_and(|sent| is_piece(sent, text)) {
            by_project.push(all.next().await.expect("a piece"));
        }
    }
    assert_eq!(client.get(&format!("/runs/{run}")).await["status"], "running");
    asked.end().await;
    while let Some(sent) = sse.next().await {
        by_sse.push(sent);
    }
    while let Some(sent) = socket.next().await {
        by_socket.push(sent);
    }
    let end = client.end_of(&run).await;
    let said = "Rivers carry sand\n🌊.";
    assert_eq!(end["output"]["said"], said, "{end}");
    let usage = &end["output"]["usage"];
    assert_eq!((&usage["input_tokens"], &usage["output_tokens"]), (&json!(7), &json!(9)));
    assert_eq!(check(&by_sse), check(&by_socket));
    let (events, text) = check(&by_sse);
    assert_eq!(text, said);
    let of_run = by_project.iter().filter(|sent| sent.name == "ephemeral");
    assert!(of_run.clone().all(|sent| sent.data["aggregate_id"] == run.as_str()));
    let texts: Vec<_> = of_run.map(|sent| sent.data["payload"]["text"].as_str()).collect();
    assert_eq!(texts.len(), 4, "{texts:?}");

    // Who didn't ask isn't told, no page has them, and no event is of their kind.
    let mut by_plain = Vec::new();
    while let Some(sent) = plain.next().await {
        by_plain.push(sent);
    }
    assert_eq!(by_plain.iter().collect::<Vec<_>>(), events);
    assert!(client.all_events().await.iter().all(|event| event["event_type"] != "llm_delta"));
    other_projects_hear_nothing(&client, &other, &mut others).await;

    // From any message on, nothing is missed, nothing told twice, and no piece comes back.
    for sent in &by_sse {
        let cursor = if sent.name == "end" { continue } else { sent.data["cursor"].as_str() };
        let mut again = client.follow(&format!("{path}?ephemeral=true"), cursor).await;
        let mut rest = Vec::new();
        while let Some(sent) = again.next().await {
            rest.push(sent);
        }
        let position = sent.data["position"].as_u64().expect("a position");
        let wanted = events.iter().filter(|event| {
            event.name == "end" || event.data["position"].as_u64() > Some(position)
        });
        assert_eq!(rest.iter().collect::<Vec<_>>(), wanted.copied().collect::<Vec<_>>());
    }
}

/// Runs something in another project, and checks that a stream of that tells this alone.
async fn other_projects_hear_nothing(client: &Client, project: &Value, others: &mut Socket) {
    let body = json!({"project_id": project, "definition": workflows::sequence("else", 1),
        "input": {"n": 1}});
    let run = client.post("/runs", &body).await.ok()["id"].clone();
    let mut told = Vec::new();
    while told.last().is_none_or(|sent: &Sent| sent.name != "run_completed") {
        told.push(others.next().await.expect("an event"));
    }
    assert_eq!(told[0].data["aggregate_id"], *project, "it begins with the project itself");
    let of_runs = told.iter().filter(|sent| sent.data["aggregate_type"] == "run");
    assert!(of_runs.clone().all(|sent| sent.data["aggregate_id"] == run), "{told:?}");
    assert!(told.iter().all(|sent| sent.name != "ephemeral") && of_runs.count() > 3, "{told:?}");
}
