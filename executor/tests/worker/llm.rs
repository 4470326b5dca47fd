//! `llm` against servers that speak the real wire formats.

use domain::definition::ActionKind::Llm;
use protocol::task::{FailureKind, Task};
use serde_json::{Value, json};

use crate::support::{Server, executor, failure, success, task};

fn openai_answer(content: &str) -> Value {
    json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-x-2024",
        "choices": [{
            "index": 0, "finish_reason": "stop",
            "message": {"role": "assistant", "content": content, "refusal": null},
        }],
        "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
    })
}

fn anthropic_answer(content: Value, stop: &str) -> Value {
    json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x-1",
        "content": content, "stop_reason": stop, "stop_sequence": null,
        "usage": {"input_tokens": 30, "cache_read_input_tokens": 10, "output_tokens": 5},
    })
}

fn model(server: &Server, provider: &str) -> Value {
    json!({
        "provider": provider, "model": "m-1", "base_url": server.url("/v1"),
        "api_key_env": "TEST_API_KEY",
        "prices": {"input_micros": 3_000_000, "output_micros": 15_000_000},
    })
}

fn schema() -> Value {
    json!({
        "type": "object", "required": ["score"], "additionalProperties": false,
        "properties": {"score": {"type": "integer", "minimum": 0, "maximum": 10}},
    })
}

/// A task with named profiles: `main`, and what it falls back to.
fn with_profiles(with: Value, profiles: &[(&str, Value)]) -> Task {
    let mut task = task(Llm, with, json!({}));
    let mut work = (*task.work).clone();
    for (name, profile) in profiles {
        let mut spec = profile.clone();
        spec["name"] = json!(name);
        spec["project_id"] =
            json!(domain::ids::ProjectId::new(uuid::Uuid::from_u128(3)).to_string());
        work.models.insert((*name).to_owned(), serde_json::from_value(spec).expect("a profile"));
    }
    work.default_model = Some("main".to_owned());
    task.work = work.into();
    task
}

#[tokio::test]
async fn openai_chat_completions() {
    let server = Server::start().await;
    server.then_json(200, openai_answer("Hello."));
    let with = json!({
        "model": model(&server, "openai"), "system": "Be {{ tone }}.",
        "prompt": "Greet {{ input.who }} in run {{ run.id }}.",
        "temperature": 0.5, "max_tokens": "${input.max}",
    });
    let task = task(Llm, with, json!({"tone": "kind", "who": "{{ 1 }}", "max": 64}));
    let done = success(&executor(), &task).await;
    let usage = json!({"input_tokens": 100, "output_tokens": 20, "cost_micros": 600});
    assert_eq!(
        done.result,
        json!({
            "text": "Hello.", "value": null, "tool_calls": [], "finish_reason": "stop",
            "model": "gpt-x-2024", "usage": usage,
        })
    );
    assert_eq!(json!(done.usage), usage);
    let seen = server.seen().remove(0);
    assert_eq!(seen.uri.path(), "/v1/chat/completions");
    assert_eq!(seen.header("authorization"), Some("Bearer sk-test-1"));
    assert_eq!(
        seen.json(),
        json!({
            "model": "m-1", "temperature": 0.5, "max_tokens": 64,
            "messages": [
                {"role": "system", "content": "Be kind."},
                {"role": "user", "content": "Greet {{ 1 }} in run run_x."},
            ],
        })
    );
}

#[tokio::test]
async fn openai_structured_output_and_tools() {
    let server = Server::start().await;
    server.then_json(200, openai_answer("```json\n{\"score\": 7}\n```"));
    let with = json!({"model": model(&server, "openai"), "prompt": "x", "schema": schema()});
    let done = success(&executor(), &task(Llm, with, json!({}))).await;
    assert_eq!(done.result["value"], json!({"score": 7}));
    let format = server.seen()[0].json()["response_format"].clone();
    assert_eq!(
        format,
        json!({
            "type": "json_schema",
            "json_schema": {"name": "answer", "strict": true, "schema": schema()},
        })
    );

    let mut answer = openai_answer("");
    answer["choices"][0] = json!({"index": 0, "finish_reason": "tool_calls", "message": {
        "role": "assistant", "content": null, "tool_calls": [{
            "id": "call_1", "type": "function",
            "function": {"name": "look", "arguments": "{\"at\": 3}"},
        }],
    }});
    server.then_json(200, answer);
    let tool = json!({"name": "look", "description": "Looks.", "parameters": {"type": "object"}});
    let with = json!({"model": model(&server, "openai"), "prompt": "x", "tools": [tool]});
    let done = success(&executor(), &task(Llm, with, json!({}))).await;
    assert_eq!(
        done.result["tool_calls"],
        json!([{"id": "call_1", "name": "look", "arguments": {"at": 3}}])
    );
    assert_eq!(done.result["finish_reason"], "tool_calls");
    assert_eq!(server.seen()[1].json()["tools"], json!([{"type": "function", "function": tool}]));
}

#[tokio::test]
async fn anthropic_messages() {
    let server = Server::start().await;
    let text = json!([{"type": "text", "text": "Hi "}, {"type": "text", "text": "there."}]);
    let input =
        json!([{"type": "tool_use", "id": "toolu_1", "name": "answer", "input": {"score": 3}}]);
    server.then_json(200, anthropic_answer(text, "end_turn"));
    server.then_json(200, anthropic_answer(input, "tool_use"));
    let with = json!({
        "model": model(&server, "anthropic"), "system": "Be kind.",
        "messages": [{"role": "system", "content": "And short."},
            {"role": "user", "content": "Say {{ input.a }}"}],
    });
    let done = success(&executor(), &task(Llm, with, json!({"a": "hi"}))).await;
    assert_eq!(done.result["text"], "Hi there.");
    assert_eq!(done.result["model"], "claude-x-1");
    assert_eq!((done.usage.input_tokens, done.usage.output_tokens), (40, 5));
    assert_eq!(done.usage.cost_micros, 195);
    let seen = server.seen().remove(0);
    assert_eq!(seen.uri.path(), "/v1/messages");
    assert_eq!(seen.header("x-api-key"), Some("sk-test-1"));
    assert_eq!(seen.header("anthropic-version"), Some("2023-06-01"));
    assert_eq!(
        seen.json(),
        json!({
            "model": "m-1", "max_tokens": 4096, "system": "Be kind.\n\nAnd short.",
            "messages": [{"role": "user", "content": "Say hi"}],
        })
    );

    let with = json!({"model": model(&server, "anthropic"), "prompt": "x", "schema": schema()});
    let done = success(&executor(), &task(Llm, with, json!({}))).await;
    assert_eq!(done.result["value"], json!({"score": 3}));
    assert_eq!(done.result["finish_reason"], "stop");
    let body = server.seen()[1].json();
    assert_eq!(body["tool_choice"], json!({"type": "tool", "name": "answer"}));
    assert_eq!(body["tools"][0]["input_schema"], schema());
}

#[tokio::test]
async fn a_wrong_answer_is_repaired_once_and_both_rounds_are_counted() {
    let server = Server::start().await;
    server.then_json(200, openai_answer("{\"score\": 70}"));
    server.then_json(200, openai_answer("{\"score\": 7}"));
    let with = json!({"model": model(&server, "openai"), "prompt": "x", "schema": schema()});
    let task = task(Llm, with, json!({}));
    let done = success(&executor(), &task).await;
    assert_eq!(done.result["value"], json!({"score": 7}));
    assert_eq!((done.usage.input_tokens, done.usage.cost_micros), (200, 1_200));
    let messages = server.seen()[1].json()["messages"].clone();
    assert_eq!(messages[1], json!({"role": "assistant", "content": "{\"score\": 70}"}));
    assert!(messages[2]["content"].as_str().expect("a text").contains("/score"));

    server.then_json(200, openai_answer("no idea")).then_json(200, openai_answer("still none"));
    let failed = failure(&executor(), &task).await;
    assert_eq!((failed.kind, failed.code.as_str()), (FailureKind::Permanent, "schema_mismatch"));
    assert_eq!(failed.detail["text"], "still none");
    assert_eq!(failed.usage.input_tokens, 200);
    assert_eq!(server.seen().len(), 4);
}

#[tokio::test]
async fn the_next_profile_answers_where_one_fails_and_policy_ends_the_chain() {
    let (first, second) = (Server::start().await, Server::start().await);
    first.then_json(500, json!({"error": {"message": "oops"}}));
    second.then_json(200, anthropic_answer(json!([{"type": "text", "text": "B"}]), "end_turn"));
    let mut main = model(&first, "openai");
    main["fallback"] = json!(["spare"]);
    let spare = model(&second, "anthropic");
    let task =
        with_profiles(json!({"prompt": "x"}), &[("main", main.clone()), ("spare", spare.clone())]);
    let done = success(&executor(), &task).await;
    assert_eq!((&done.result["text"], &done.result["model"]), (&json!("B"), &json!("claude-x-1")));

    main["base_url"] = json!("http://10.0.0.1/v1");
    let task = with_profiles(json!({"prompt": "x"}), &[("main", main), ("spare", spare)]);
    let failed = failure(&executor(), &task).await;
    assert_eq!((failed.kind, failed.code.as_str()), (FailureKind::Policy, "address_refused"));
    assert_eq!(second.seen().len(), 1);
}

#[tokio::test]
async fn where_all_fail_the_retryable_failure_speaks() {
    let (first, second) = (Server::start().await, Server::start().await);
    first.then((axum::http::StatusCode::TOO_MANY_REQUESTS, [("retry-after", "9")], "{}"));
    second.then_json(
        400,
        json!({"type": "error", "error": {"type": "invalid_request_error", "message": "bad"}}),
    );
    let mut main = model(&first, "openai");
    main["fallback"] = json!(["spare"]);
    let task = with_profiles(
        json!({"prompt": "x"}),
        &[("main", main), ("spare", model(&second, "anthropic"))],
    );
    let failed = failure(&executor(), &task).await;
    assert_eq!((failed.kind, failed.code.as_str()), (FailureKind::Transient, "rate_limited"));
    assert_eq!(failed.retry_after, Some("9s".parse().expect("a span")));
    let tried =
        |at: usize| [&failed.detail["tried"][at]["model"], &failed.detail["tried"][at]["code"]];
    assert_eq!(tried(0), ["main", "rate_limited"]);
    assert_eq!(tried(1), ["spare", "bad_request"]);
    assert!(failed.detail["tried"][1]["message"].is_string());
}

#[tokio::test]
async fn refusals_of_providers_are_classified_and_never_show_the_key() {
    for (status, body, kind, code) in [
        (
            401,
            json!({"error": {"message": "bad key sk-test-1"}}),
            FailureKind::Permanent,
            "unauthorized",
        ),
        (400, json!({"error": {"message": "sk-test-1?"}}), FailureKind::Permanent, "bad_request"),
        (
            400,
            json!({"error": {"message": "m", "code": "context_length_exceeded"}}),
            FailureKind::Permanent,
            "context_length",
        ),
        (404, json!({}), FailureKind::Permanent, "model_not_found"),
        (
            429,
            json!({"error": {"code": "insufficient_quota"}}),
            FailureKind::Permanent,
            "quota_exhausted",
        ),
        (500, json!({}), FailureKind::Transient, "provider_error"),
        (
            529,
            json!({"type": "error", "error": {"type": "overloaded_error"}}),
            FailureKind::Transient,
            "overloaded",
        ),
        (302, json!({}), FailureKind::Permanent, "http_status"),
    ] {
        let server = Server::start().await;
        server.then_json(status, body);
        let with = json!({"model": model(&server, "openai"), "prompt": "x"});
        let failed = failure(&executor(), &task(Llm, with, json!({}))).await;
        assert_eq!((failed.kind, failed.code.as_str()), (kind, code), "{status}");
        assert!(!format!("{failed:?}").contains("sk-test"), "{failed:?}");
    }
}

#[tokio::test]
async fn broken_answers_are_transient() {
    for body in ["{not json", "{}", "{\"choices\": []}", "{\"choices\": [{\"message\": null}]}"] {
        let server = Server::start().await;
        server.then(([("content-type", "application/json")], body));
        let with = json!({"model": model(&server, "openai"), "prompt": "x"});
        let failed = failure(&executor(), &task(Llm, with, json!({}))).await;
        assert_eq!(
            (failed.kind, failed.code.as_str()),
            (FailureKind::Transient, "malformed_answer")
        );
    }
}

#[tokio::test]
async fn keys_come_from_allowed_variables_only() {
    let server = Server::start().await;
    for (variable, kind, code) in [
        ("OTHER_API_KEY", FailureKind::Permanent, "missing_api_key"),
        ("DATABASE_URL", FailureKind::Policy, "api_key_env_refused"),
    ] {
        let mut model = model(&server, "openai");
        model["api_key_env"] = json!(variable);
        let failed =
            failure(&executor(), &task(Llm, json!({"model": model, "prompt": "x"}), json!({})))
                .await;
        assert_eq!((failed.kind, failed.code.as_str()), (kind, code));
        assert!(failed.message.contains(variable));
    }
    let mut model = model(&server, "openai");
    model.as_object_mut().expect("an object").remove("api_key_env");
    server.then_json(200, openai_answer("x"));
    success(&executor(), &task(Llm, json!({"model": model, "prompt": "x"}), json!({}))).await;
    assert_eq!(server.seen()[0].header("authorization"), None);
}

#[tokio::test]
async fn an_outcome_names_the_secrets_that_its_attempt_was_given() {
    let server = Server::start().await;
    let executor = executor();
    let keyed = json!({"model": model(&server, "openai"), "prompt": "x"});
    // Whatever comes of it: the key went out with the request.
    let outcome = executor.perform(&task(Llm, keyed, json!({}))).await;
    assert_eq!(outcome.secrets, ["TEST_API_KEY"]);
    let built_in = json!({"model": {"provider": "mock", "model": "m-1"}, "prompt": "x"});
    let outcome = executor.perform(&task(Llm, built_in, json!({}))).await;
    assert_eq!(outcome.secrets, [""; 0]);
}

#[tokio::test]
async fn the_built_in_model_is_deterministic_and_satisfies_schemas() {
    let mock = json!({"provider": "mock", "model": "demo", "prices": {"input_micros": 1_000_000}});
    let ask = async |prompt: &str, schema: Value| {
        let with = json!({"model": mock, "prompt": prompt, "schema": schema});
        success(&executor(), &task(Llm, with, json!({}))).await
    };
    let schema = json!({
        "type": "object",
        "required": ["votes", "verdict", "on", "share", "note"],
        "properties": {
            "votes": {
                "type": "array", "minItems": 2, "maxItems": 4, "items": {"$ref": "#/$defs/vote"},
            },
            "verdict": {"enum": ["yes", "no"]},
            "on": {"type": "string", "format": "date"},
            "share": {"type": "number", "minimum": 0, "maximum": 1},
            "step": {"type": "integer", "exclusiveMinimum": 3, "maximum": 12, "multipleOf": 4},
            "note": {"type": ["string", "null"], "minLength": 3, "maxLength": 40},
            "any": {"anyOf": [{"type": "boolean"}, {"const": 5}]},
            "both": {"allOf": [
                {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
                {"properties": {"b": {"type": "null"}}, "required": ["b"]},
            ]},
        },
        "$defs": {"vote": {"type": "integer", "minimum": 1, "maximum": 10}},
    });
    let mut values = std::collections::BTreeSet::new();
    for prompt in ["one", "two", "three", "four", "five"] {
        let first = ask(prompt, schema.clone()).await;
        assert_eq!(first, ask(prompt, schema.clone()).await);
        values.insert(first.result["value"].to_string());
        assert!(first.usage.cost_micros > 0);
    }
    assert_eq!(values.len(), 5);

    let long =
        "Summarise:\n\nRivers carry sediment to the sea. They slow down near the coast.\n\nEnd";
    let with = json!({"model": {"provider": "mock", "model": "demo"}, "prompt": long});
    let done = success(&executor(), &task(Llm, with, json!({}))).await;
    let text = done.result["text"].as_str().expect("a text");
    assert!(text.starts_with("Rivers carry sediment to the sea."), "{text}");
}

#[tokio::test]
async fn a_prompt_spec_brings_system_variables_and_schema() {
    let mut task = with_profiles(
        json!({"prompt_spec": "greet@1"}),
        &[("main", json!({"provider": "mock", "model": "demo"}))],
    );
    let mut work = (*task.work).clone();
    let spec = json!({
        "project_id": domain::ids::ProjectId::new(uuid::Uuid::from_u128(3)).to_string(),
        "name": "greet", "system": "Be kind.", "template": "Greet {{ who }}.",
        "variables_schema": {"type": "object", "required": ["who"]},
        "output_schema": schema(),
    });
    work.prompts.insert("greet@1".to_owned(), serde_json::from_value(spec).expect("a spec"));
    task.work = work.into();
    let failed = failure(&executor(), &task).await;
    assert_eq!(failed.code, "variables_mismatch");
    task.input = json!({"who": "Ada"});
    let done = success(&executor(), &task).await;
    assert!(done.result["value"]["score"].is_u64());
}
