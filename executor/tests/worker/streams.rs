//! Answers of models that come piece by piece: real bytes, cut anywhere.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::Response;
use domain::definition::ActionKind::Llm;
use executor::{Executor, ExecutorConfig};
use futures::stream::{self, StreamExt as _};
use protocol::task::{Failure, FailureKind, Success};
use protocol::{Ephemeral, EphemeralSink};
use serde_json::{Value, json};

use crate::support::{Server, config, failure, steps, success, task};

/// Who listens, and all that it heard.
#[derive(Default)]
struct Ear {
    is_deaf: bool,
    heard: Mutex<Vec<Ephemeral>>,
}

impl EphemeralSink for Ear {
    fn is_heard(&self) -> bool {
        !self.is_deaf
    }

    fn tell(&self, message: Ephemeral) {
        self.heard.lock().expect("lock").push(message);
    }
}

impl Ear {
    fn take(&self) -> Vec<Ephemeral> {
        std::mem::take(&mut self.heard.lock().expect("lock"))
    }

    /// What the answer of this number is, put together.
    fn text(&self, answer: u32) -> String {
        let heard = self.take();
        let of_it = heard.iter().filter(|message| message.delta.answer == answer);
        of_it.map(|message| message.delta.text.as_str()).collect()
    }
}

fn listening(config: ExecutorConfig) -> (Executor, Arc<Ear>) {
    let ear = Arc::new(Ear::default());
    (Executor::telling(config, ear.clone()).expect("an executor"), ear)
}

fn model(server: &Server, provider: &str) -> Value {
    json!({
        "provider": provider, "model": "m-1", "base_url": server.url("/v1"),
        "api_key_env": "TEST_API_KEY",
        "prices": {"input_micros": 3_000_000, "output_micros": 15_000_000},
    })
}

/// A stream of OpenAI's format.
fn chunks(chunks: &[Value]) -> String {
    let chunks = chunks.iter().map(|chunk| format!("data: {chunk}\n\n"));
    chunks.chain(["data: [DONE]\n\n".to_owned()]).collect()
}

fn chunk(delta: Value, finish: Value) -> Value {
    let choice = json!({"index": 0, "delta": delta, "finish_reason": finish});
    json!({"id": "c", "object": "chat.completion.chunk", "model": "gpt-x", "choices": [choice],
        "usage": null})
}

fn spent() -> Value {
    json!({"model": "gpt-x", "choices": [], "usage": {"prompt_tokens": 100, "completion_tokens": 20}})
}

fn said(texts: &[&str]) -> String {
    let mut all = vec![chunk(json!({"role": "assistant", "content": ""}), Value::Null)];
    all.extend(texts.iter().map(|text| chunk(json!({"content": text}), Value::Null)));
    all.push(chunk(json!({}), json!("stop")));
    all.push(spent());
    chunks(&all)
}

/// A stream of Anthropic's format.
fn events(events: &[Value]) -> String {
    let line = |event: &Value| {
        format!("event: {}\ndata: {event}\n\n", event["type"].as_str().expect("a type"))
    };
    events.iter().map(line).collect()
}

fn message_start() -> Value {
    json!({"type": "message_start", "message": {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x", "content": [],
        "stop_reason": null, "usage": {"input_tokens": 30, "cache_read_input_tokens": 10,
            "output_tokens": 1},
    }})
}

fn block(index: u64, begun: Value, deltas: &[Value]) -> Vec<Value> {
    let mut all =
        vec![json!({"type": "content_block_start", "index": index, "content_block": begun})];
    let delta = |delta| json!({"type": "content_block_delta", "index": index, "delta": delta});
    all.extend(deltas.iter().map(delta));
    all.push(json!({"type": "content_block_stop", "index": index}));
    all
}

fn message_end(stop: &str) -> Vec<Value> {
    vec![
        json!({"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": null},
            "usage": {"output_tokens": 5}}),
        json!({"type": "message_stop"}),
    ]
}

fn answer(body: Body) -> Response<Body> {
    let builder = Response::builder().header("content-type", "text/event-stream; charset=utf-8");
    builder.body(body).expect("an answer")
}

/// The bytes in pieces of up to 37, cut as a seed has it, each on its way before the next.
fn cut(bytes: &str, seed: u64) -> Response<Body> {
    let (mut rest, mut pieces, mut state) = (bytes.as_bytes(), Vec::new(), seed);
    while !rest.is_empty() {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (piece, left) = rest.split_at(rest.len().min(1 + (state >> 33) as usize % 37));
        pieces.push(Bytes::copy_from_slice(piece));
        rest = left;
    }
    let pieces = stream::iter(pieces).then(async |piece| {
        tokio::task::yield_now().await;
        Ok::<_, Infallible>(piece)
    });
    answer(Body::from_stream(pieces))
}

/// So much of an answer, and then what `end` does.
fn broken(bytes: &str, end: impl Future<Output = io::Error> + Send + 'static) -> Response<Body> {
    let begun = Bytes::copy_from_slice(bytes.as_bytes());
    let end = stream::once(async { Err(end.await) });
    answer(Body::from_stream(stream::iter([Ok(begun)]).chain(end)))
}

fn whole(server: &Server, body: Value) {
    server.then_json(200, body);
}

/// What the same answer gives when it comes whole, and cut by a seed; with what was told of it.
async fn both(
    provider: &str,
    body: Value,
    stream: &str,
    seed: u64,
    more: Value,
) -> (Success, String) {
    let server = Server::start().await;
    let mut with = json!({"model": model(&server, provider), "prompt": "x"});
    with.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
    let (executor, ear) = listening(config());
    whole(&server, body);
    let at_once = success(&executor, &task(Llm, with.clone(), json!({}))).await;
    assert_eq!(ear.take(), [], "nothing is told of what wasn't asked for piece by piece");
    with["stream"] = json!(true);
    server.then(cut(stream, seed));
    let streamed = success(&executor, &task(Llm, with, json!({}))).await;
    assert_eq!(streamed, at_once, "seed {seed}");
    assert_eq!(server.seen()[1].json()["stream"], true);
    (streamed, ear.text(1))
}

#[tokio::test]
async fn an_answer_that_comes_in_pieces_is_the_one_that_comes_whole() {
    let texts = ["Grüße, ", "", "δ", "elta ", "\"quoted\"\n", "🦀", " end."];
    let text = texts.concat();
    for seed in 0..25 {
        let body = json!({
            "model": "gpt-x", "usage": {"prompt_tokens": 100, "completion_tokens": 20},
            "choices": [{"finish_reason": "stop", "message": {"content": text}}],
        });
        let (done, told) = both("openai", body, &said(&texts), seed, json!({})).await;
        assert_eq!((told, &done.result["text"]), (text.clone(), &json!(text)));
        assert_eq!(done.usage.cost_micros, 600);

        let body = json!({
            "model": "claude-x", "stop_reason": "max_tokens",
            "content": [{"type": "text", "text": text}],
            "usage": {"input_tokens": 30, "cache_read_input_tokens": 10, "output_tokens": 5},
        });
        let deltas: Vec<_> =
            texts.iter().map(|text| json!({"type": "text_delta", "text": text})).collect();
        let mut all = vec![message_start(), json!({"type": "ping"})];
        all.extend(block(
            0,
            json!({"type": "thinking", "thinking": ""}),
            &[json!({"type": "thinking_delta", "thinking": "hm"})],
        ));
        all.extend(block(1, json!({"type": "text", "text": ""}), &deltas));
        all.extend(message_end("max_tokens"));
        let (done, told) = both("anthropic", body, &events(&all), seed, json!({})).await;
        assert_eq!((told, &done.result["finish_reason"]), (text.clone(), &json!("length")));
        assert_eq!((done.usage.input_tokens, done.usage.output_tokens), (40, 5));
    }
}

#[tokio::test]
async fn calls_of_tools_and_structured_answers_are_put_together() {
    let tool = json!({"name": "look", "parameters": {"type": "object"}});
    let call = |id: &str, arguments: &str| json!({"id": id, "type": "function", "function": {"name": "look", "arguments": arguments}});
    let body = json!({
        "model": "gpt-x", "usage": {"prompt_tokens": 100, "completion_tokens": 20},
        "choices": [{"finish_reason": "tool_calls", "message": {
            "content": null, "tool_calls": [call("a", "{\"at\": 3}"), call("b", "{}")],
        }}],
    });
    let piece = |index: u64, id: Value, name: Value, arguments: &str| {
        let function = json!({"name": name, "arguments": arguments});
        let piece = json!({"index": index, "id": id, "type": "function", "function": function});
        chunk(json!({"tool_calls": [piece]}), Value::Null)
    };
    let stream = chunks(&[
        piece(0, json!("a"), json!("look"), ""),
        piece(0, Value::Null, Value::Null, "{\"at\""),
        piece(1, json!("b"), json!("look"), "{"),
        piece(0, Value::Null, Value::Null, ": 3}"),
        piece(1, Value::Null, Value::Null, "}"),
        chunk(json!({}), json!("tool_calls")),
        spent(),
    ]);
    let (done, told) = both("openai", body, &stream, 1, json!({"tools": [tool]})).await;
    assert_eq!(done.result["tool_calls"][0]["arguments"], json!({"at": 3}));
    assert_eq!(told, "");

    let schema = json!({"type": "object", "properties": {"score": {"type": "integer"}}});
    let body = json!({
        "model": "claude-x", "stop_reason": "tool_use",
        "content": [{"type": "tool_use", "id": "t", "name": "answer", "input": {"score": 3}}],
        "usage": {"input_tokens": 30, "cache_read_input_tokens": 10, "output_tokens": 5},
    });
    let begun = json!({"type": "tool_use", "id": "t", "name": "answer", "input": {}});
    let partial = |text: &str| json!({"type": "input_json_delta", "partial_json": text});
    let mut all = vec![message_start()];
    all.extend(block(0, begun, &[partial(""), partial("{\"sco"), partial("re\": 3}")]));
    all.extend(message_end("tool_use"));
    let (done, _) = both("anthropic", body, &events(&all), 2, json!({"schema": schema})).await;
    assert_eq!(done.result["value"], json!({"score": 3}));
}

#[tokio::test]
async fn pieces_say_where_they_belong() {
    let server = Server::start().await;
    server.then(cut(&said(&["{\"score\": ", "70}"]), 1)).then(cut(&said(&["{\"score\": 7}"]), 2));
    let schema = json!({"type": "object", "properties": {"score": {"maximum": 10}}});
    let action = json!({"kind": "llm", "with": {"model": model(&server, "openai"), "prompt": "x",
        "schema": schema, "stream": "${input.live}"}});
    let task = steps(json!([{"name": "ask", "action": action}]), json!({"live": true}));
    let (executor, ear) = listening(config());
    success(&executor, &task).await;
    let heard = ear.take();
    assert!(heard.iter().enumerate().all(|(at, one)| one.delta.index == at as u64), "{heard:?}");
    for one in &heard {
        assert_eq!((one.run_id, one.project_id), (task.run_id, task.project_id));
        assert_eq!(one.workflow_id, task.workflow_id);
        let delta = &one.delta;
        assert_eq!((&*delta.node, delta.step.as_deref()), ("node", Some("ask")));
        assert_eq!((delta.token, delta.attempt), (7, 1));
    }
    let text = |answer| {
        let of_it = heard.iter().filter(|one| one.delta.answer == answer);
        of_it.map(|one| one.delta.text.as_str()).collect::<String>()
    };
    assert_eq!((text(1), text(2)), ("{\"score\": 70}".to_owned(), "{\"score\": 7}".to_owned()));

    let with = json!({"model": model(&server, "openai"), "prompt": "x", "stream": "yes"});
    assert_eq!(
        failure(&executor, &crate::support::task(Llm, with, json!({}))).await.code,
        "invalid_action"
    );
}

#[tokio::test]
async fn a_long_answer_is_told_in_messages_of_bounded_size_and_nothing_where_nobody_listens() {
    let long = "é".repeat(10_000);
    let server = Server::start().await;
    server.then(answer(Body::from(said(&[&long])))).then(answer(Body::from(said(&[&long]))));
    let with = json!({"model": model(&server, "openai"), "prompt": "x", "stream": true});
    let task = task(Llm, with, json!({}));
    let (executor, ear) = listening(config());
    success(&executor, &task).await;
    let heard = ear.take();
    assert!(heard.iter().all(|one| one.delta.text.len() <= protocol::ephemeral::DELTA_BYTES));
    assert_eq!(heard.iter().map(|one| one.delta.text.as_str()).collect::<String>(), long);
    let ear = Arc::new(Ear { is_deaf: true, ..Ear::default() });
    let executor = Executor::telling(config(), ear.clone()).expect("an executor");
    assert_eq!(success(&executor, &task).await.result["text"], long);
    assert_eq!(ear.take(), []);
}

async fn failed(executor: &Executor, provider: &str, answer: Response<Body>) -> Failure {
    let server = Server::start().await;
    server.then(answer);
    let with = json!({"model": model(&server, provider), "prompt": "x", "stream": true});
    failure(executor, &task(Llm, with, json!({}))).await
}

#[tokio::test]
async fn a_stream_that_is_cut_stalls_or_says_that_it_failed_is_a_failure_to_retry() {
    let mut config = config();
    config.http.idle_timeout = Duration::from_millis(60);
    let (executor, ear) = listening(config);
    let begun = "data: {\"choices\": [{\"delta\": {\"content\": \"Hel\"}}]}\n\n";
    let gone = || async { io::Error::other("gone") };
    let reset = failed(&executor, "openai", broken(begun, gone())).await;
    assert_eq!((reset.kind, reset.code.as_str()), (FailureKind::Transient, "transport"));
    let closed = failed(&executor, "openai", answer(Body::from(begun))).await;
    assert_eq!((closed.kind, closed.code.as_str()), (FailureKind::Transient, "transport"));
    let started = events(&[message_start()]);
    let closed = failed(&executor, "anthropic", answer(Body::from(started))).await;
    assert_eq!((closed.kind, closed.code.as_str()), (FailureKind::Transient, "transport"));
    // What it has cost is counted, as far as the provider has told.
    assert_eq!((closed.usage.input_tokens, closed.usage.cost_micros), (40, 135));
    let stalled = failed(&executor, "openai", broken(begun, std::future::pending())).await;
    assert_eq!((stalled.kind, stalled.code.as_str()), (FailureKind::Transient, "idle_timeout"));
    // What came before is told while it waits.
    assert!(ear.take().iter().any(|one| one.delta.text == "Hel"));

    let error =
        json!({"type": "error", "error": {"type": "overloaded_error", "message": "sk-test-1"}});
    let failed_there =
        failed(&executor, "anthropic", cut(&events(&[message_start(), error]), 3)).await;
    assert_eq!(
        (failed_there.kind, failed_there.code.as_str()),
        (FailureKind::Transient, "overloaded")
    );
    assert!(!format!("{failed_there:?}").contains("sk-test"));
    let odd = failed(&executor, "openai", answer(Body::from("data: {\n\n"))).await;
    assert_eq!((odd.kind, odd.code.as_str()), (FailureKind::Transient, "malformed_answer"));
    for odd in ["data: 5\n\n", "data: []\n\ndata: {\"type\": 3}\n\n"] {
        let odd = failed(&executor, "anthropic", answer(Body::from(odd))).await;
        assert_eq!((odd.kind, odd.code.as_str()), (FailureKind::Transient, "transport"));
    }
    let refused = Response::builder().status(429).body(Body::from("{}")).expect("an answer");
    assert_eq!(failed(&executor, "openai", refused).await.code, "rate_limited");
}

#[tokio::test]
async fn a_server_may_answer_whole_or_end_without_its_last_word_and_sizes_are_bounded() {
    let (executor, ear) = listening(config());
    let server = Server::start().await;
    let body = json!({"choices": [{"finish_reason": "stop", "message": {"content": "Hi."}}]});
    whole(&server, body);
    let stream = said(&["Hi."]);
    server.then(cut(stream.trim_end_matches("data: [DONE]\n\n"), 5));
    let with = json!({"model": model(&server, "openai"), "prompt": "x", "stream": true});
    let task = task(Llm, with, json!({}));
    for _ in 0..2 {
        assert_eq!(success(&executor, &task).await.result["text"], "Hi.");
        assert_eq!(ear.text(1), "Hi.");
    }

    let mut config = config();
    config.http.streamed_bytes = 4_000;
    let (executor, _) = listening(config);
    server.then(cut(&said(&["a"; 400]), 6));
    assert_eq!(failure(&executor, &task).await.code, "response_too_large");

    let built_in =
        json!({"model": {"provider": "mock", "model": "m"}, "prompt": "x", "stream": true});
    let (executor, ear) = listening(crate::support::config());
    let done = success(&executor, &crate::support::task(Llm, built_in, json!({}))).await;
    assert_eq!(done.result["text"], ear.text(1));
}
