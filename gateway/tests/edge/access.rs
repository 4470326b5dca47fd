//! Who may use which route.

use axum::body::Body;
use domain::access;
use domain::ids::{ApiKeyId, ProjectId, WorkspaceId};
use domain::resource::{Kind, Scope};
use gateway::{Administrator, AuthConfig, Permission, Secret, SystemEnvironment, routes};
use protocol::{AuditResult, Command, Rejection, RejectionKind, ResourceView};
use serde_json::json;

use crate::fakes::{Client, gateway as edge, home, run_id, start_time};

const JSON: (&str, &str) = ("content-type", "application/json");

fn view(kind: Kind, id: String, workspace: WorkspaceId, spec: serde_json::Value) -> ResourceView {
    ResourceView {
        id,
        kind,
        workspace_id: workspace.to_string(),
        project_id: None,
        name: "a".to_owned(),
        version: 4,
        archived: false,
        created_at: start_time(),
        updated_at: start_time(),
        spec,
    }
}

/// Puts a key into the world and answers its `Authorization` header.
pub(crate) fn grant(
    client: &Client,
    workspace: WorkspaceId,
    scopes: &[Scope],
    expires: Option<i64>,
) -> String {
    let id = ApiKeyId::derived(&workspace.to_string(), &format!("{scopes:?}{expires:?}"));
    let secret = Secret::new(&SystemEnvironment);
    let expires_at = expires.map(|after| start_time() + chrono::TimeDelta::seconds(after));
    let spec = json!({"workspace_id": workspace, "name": "k", "secret_hash": secret.hash(),
        "scopes": scopes, "expires_at": expires_at});
    let stored = view(Kind::ApiKey, id.to_string(), workspace, spec);
    client.world.resources.lock().expect("lock").insert(id.to_string(), stored);
    format!("Bearer {}", secret.token(id))
}

fn concrete(path: &str) -> String {
    let id = match path.split('/').nth(3) {
        Some("workspaces") => home().to_string(),
        Some("runs") => run_id().to_string(),
        Some("projects") => ProjectId::derived("", "x").to_string(),
        _ => "nothing".to_owned(),
    };
    path.replace("{id}", &id).replace("{code}", "not_found")
}

#[tokio::test]
async fn every_route_asks_for_its_scope_and_for_no_less() {
    let client = Client::new(AuthConfig::Keys { administrator: None });
    client.world.record(home(), "run_completed");
    let scopes = [Scope::Read, Scope::Run, Scope::Write, Scope::Admin];
    let keys = scopes.map(|scope| (scope, grant(&client, home(), &[scope], None)));
    for route in routes() {
        let (path, verb) = (concrete(route.path), route.verb.method());
        let none = client.call(verb.as_str(), &path, &[], "").await;
        let public = route.permission == Permission::Public;
        assert_eq!(none.status == 401, !public, "{verb} {path} without a key");
        for (scope, key) in &keys {
            let answer = client.call(verb.as_str(), &path, &[("authorization", key)], "").await;
            let may = public || *scope == Scope::Admin || route.permission.scope() == Some(*scope);
            let new_workspace = verb == "POST" && path == "/api/v1/workspaces";
            assert_eq!(answer.status == 403, !may || new_workspace, "{verb} {path} with {scope:?}");
            assert_ne!(answer.status, 401, "{verb} {path} with {scope:?}");
        }
    }
}

#[tokio::test]
async fn a_key_that_is_wrong_expired_or_archived_is_nobody() {
    let client = Client::new(AuthConfig::Keys { administrator: None });
    let good = grant(&client, home(), &[Scope::Read], Some(60));
    let status = async |key: &str| {
        client.call("GET", "/api/v1/runs", &[("authorization", key)], "").await.status.as_u16()
    };
    assert_eq!(status(&good).await, 200);
    let (body, last) = good.split_at(good.len() - 2);
    let wrong = format!("{body}{}", if last == "00" { "10" } else { "00" });
    let unknown = Secret::new(&SystemEnvironment).token(ApiKeyId::derived("", "nobody"));
    let basic = good.replace("Bearer", "Basic");
    for bad in
        [wrong.as_str(), &format!("Bearer {unknown}"), &basic, "Bearer x", "", "Bearer wonder__"]
    {
        assert_eq!(status(bad).await, 401, "{bad}");
    }
    *client.world.seconds.lock().expect("lock") = 61;
    assert_eq!(status(&good).await, 401);
}

#[tokio::test]
async fn a_key_is_cached_and_an_archived_one_stops_within_five_seconds() {
    let client = Client::new(AuthConfig::Keys { administrator: None });
    let key = grant(&client, home(), &[Scope::Read], None);
    let headers = [("authorization", key.as_str())];
    for _ in 0..3 {
        assert_eq!(client.call("GET", "/api/v1/runs", &headers, "").await.status, 200);
    }
    assert_eq!(*client.world.reads.lock().expect("lock"), 1);
    client.world.resources.lock().expect("lock").values_mut().for_each(|view| view.archived = true);
    *client.world.seconds.lock().expect("lock") = 5;
    assert_eq!(client.call("GET", "/api/v1/runs", &headers, "").await.status, 401);
}

#[tokio::test]
async fn another_tenants_things_are_not_there() {
    let client = Client::new(AuthConfig::Keys { administrator: None });
    let there = WorkspaceId::derived("", "there");
    let key = grant(&client, there, &[Scope::Admin], None);
    client.world.record(home(), "run_started");
    let id = ProjectId::derived("", "x").to_string();
    let project = view(Kind::Project, id.clone(), home(), json!({"name": "x"}));
    client.world.resources.lock().expect("lock").insert(id.clone(), project);
    let run = format!("/api/v1/runs/{}", run_id());
    for path in [
        format!("/api/v1/projects/{id}"),
        format!("/api/v1/projects/{id}/history"),
        format!("/api/v1/workspaces/{}", home()),
        format!("/api/v1/workspaces/{}/history", home()),
        run.clone(),
        format!("{run}/events"),
        format!("{run}/state"),
        format!("{run}/timeline"),
    ] {
        let answer = client.call("GET", &path, &[("authorization", &key)], "").await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (404, "not_found"), "{path}");
    }
    let list = client.call("GET", "/api/v1/projects", &[("authorization", &key)], "").await;
    assert_eq!(list.json()["items"], json!([]));
    let events = client.call("GET", "/api/v1/events", &[("authorization", &key)], "").await;
    assert_eq!(events.json()["items"], json!([]));
    client.call("DELETE", &format!("/api/v1/projects/{id}"), &[("authorization", &key)], "").await;
    assert_eq!(client.last_command().workspace_id, there);
}

#[tokio::test]
async fn dev_mode_answers_to_loopback_names_and_its_own_origin_only() {
    let client = Client::dev();
    let evil = client.call("GET", "/livez", &[("host", "evil.example")], Body::empty()).await;
    assert_eq!((evil.status.as_u16(), evil.code().as_str()), (403, "host_not_allowed"));
    for (name, value) in [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("origin", "https://evil.example"),
        ("origin", "null"),
    ] {
        let headers = [JSON, (name, value)];
        let answer = client.call("POST", "/api/v1/projects", &headers, r#"{"name":"a"}"#).await;
        assert_eq!(answer.code(), "cross_site_request", "{name}: {value}");
    }
    let own = [JSON, ("sec-fetch-site", "same-origin"), ("origin", "http://localhost:8080")];
    let answer = client.call("POST", "/api/v1/projects", &own, r#"{"name":"a"}"#).await;
    assert_eq!(answer.status, 201);
}

#[tokio::test]
async fn a_new_key_works_and_its_hash_is_never_shown() {
    let client = Client::dev();
    let answer = client.post("/api/v1/api-keys", r#"{"name":"ci","scopes":["read"]}"#).await;
    assert_eq!(answer.status, 201);
    let body = answer.json();
    let secret = body["secret"].as_str().expect("a secret").to_owned();
    let stored = serde_json::to_value(client.last_command().command).expect("json");
    let spec = stored["create"]["spec"].clone();
    assert!(!stored.to_string().contains(secret.rsplit('_').next().expect("a part")));
    let id = body["id"].as_str().expect("an id").to_owned();
    let kept = view(Kind::ApiKey, id.clone(), home(), spec);
    client.world.resources.lock().expect("lock").insert(id.clone(), kept);
    let bearer = format!("Bearer {secret}");
    let path = format!("/api/v1/api-keys/{id}");
    let denied = client.call("GET", &path, &[("authorization", &bearer)], "").await;
    assert_eq!(denied.status, 403, "a key that reads may not read keys");
    let shown = client.get(&path).await;
    assert_eq!(shown.header("etag"), "\"4\"");
    assert!(!shown.text.contains("secret_hash") && shown.text.contains("scopes"));
    assert!(!client.get("/api/v1/api-keys").await.text.contains("secret_hash"));
    let twice =
        client.call("POST", "/api/v1/api-keys", &[JSON, ("idempotency-key", "k")], "{}").await;
    assert_eq!(twice.code(), "invalid_header");
    let media = [JSON];
    let patch = client.call("PATCH", &path, &media, r#"{"secret_hash":"00"}"#).await;
    assert_eq!(patch.status, 422);
}

#[tokio::test]
async fn dev_mode_does_not_listen_beyond_loopback() {
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.expect("a port");
    let gateway = edge(&Default::default(), AuthConfig::Dev { workspace_id: home() });
    let refused = gateway::serve(listener, gateway, Default::default()).await;
    assert!(matches!(refused, Err(gateway::ServeError::DevOffLoopback(_))));
}

#[tokio::test]
async fn it_serves_on_loopback_until_it_is_shut_down() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let gateway = edge(&Default::default(), AuthConfig::Dev { workspace_id: home() });
    let shutdown = tokio_util::sync::CancellationToken::new();
    let server = tokio::spawn(gateway::serve(listener, gateway, shutdown.clone()));
    let mut socket = tokio::net::TcpStream::connect(address).await.expect("a connection");
    let request = format!(
        "GET /api/v1/events HTTP/1.1\r\nhost: {address}\r\naccept: text/event-stream\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await.expect("a request");
    let mut start = [0; 12];
    socket.read_exact(&mut start).await.expect("an answer");
    assert_eq!(&start, b"HTTP/1.1 200");
    shutdown.cancel();
    let mut rest = String::new();
    socket.read_to_string(&mut rest).await.expect("the stream's end");
    server.await.expect("no panic").expect("a clean end");
}

#[tokio::test]
async fn an_inline_definition_needs_the_right_to_publish_it() {
    let client = Client::new(AuthConfig::Keys { administrator: None });
    let run = grant(&client, home(), &[Scope::Run], None);
    let write = grant(&client, home(), &[Scope::Run, Scope::Write], None);
    let inline = json!({"definition": {"name": "d", "start": "a",
        "nodes": {"a": {"compute": {"state.x": 1}}}}, "input": {}});
    let named = json!({"definition": "d", "input": {}});
    for (key, body, status) in [(&run, &inline, 403), (&run, &named, 201), (&write, &inline, 201)] {
        let headers = [JSON, ("authorization", key.as_str())];
        let answer = client.call("POST", "/api/v1/runs", &headers, body.to_string()).await;
        assert_eq!(answer.status, status, "{body}");
    }
}

#[tokio::test]
async fn the_administrators_key_opens_everything_and_nothing_like_it_does() {
    let secret = "0123456789abcdef0123456789abcdef";
    let administrator = Some(Administrator::new(secret, home()));
    let client = Client::new(AuthConfig::Keys { administrator });
    for (token, status) in [(secret, 200), (&secret[1..], 401), ("", 401)] {
        let key = format!("Bearer {token}");
        let answer = client.call("GET", "/api/v1/projects", &[("authorization", &key)], "").await;
        assert_eq!(answer.status, status, "{token}");
    }
}

#[tokio::test]
async fn the_audit_log_is_for_administrators_and_its_filters_are_passed_on() {
    let client = Client::dev();
    let path = "/api/v1/audit?actor=key_1&action=run.started&resource_type=run&resource_id=run_1\
                &run_id=run_2&result=failed&after=2026-01-01T00:00:00Z&before=2026-02-01T00:00:00Z";
    assert_eq!(client.get(path).await.status, 200);
    let Command::RecordAccess(access::Event::AuditRead { filter: asked }) =
        client.last_command().command
    else {
        panic!("the read isn't recorded")
    };
    assert_eq!((&asked["actor"], &asked["result"]), (&json!("key_1"), &json!("failed")));
    assert_eq!(client.get("/api/v1/audit?actor=key_1").await.status, 200);
    let asked = access::Event::AuditRead { filter: json!({"actor": "key_1"}) };
    assert_eq!(client.last_command().command, Command::RecordAccess(asked));
    client.world.audit_filters.lock().expect("lock").pop();
    let filter = client.world.audit_filters.lock().expect("lock").pop().expect("a filter");
    let text = |text: &str| Some(text.to_owned());
    assert_eq!((filter.actor, filter.action), (text("key_1"), text("run.started")));
    assert_eq!((filter.resource_type, filter.resource_id), (text("run"), text("run_1")));
    assert_eq!((filter.run_id, filter.result), (text("run_2"), Some(AuditResult::Failed)));
    assert_eq!(filter.after, "2026-01-01T00:00:00Z".parse().ok());
    assert_eq!(filter.before, "2026-02-01T00:00:00Z".parse().ok());
    for query in ["result=maybe", "after=soon", "limit=0", "who=me"] {
        assert_eq!(client.get(&format!("/api/v1/audit?{query}")).await.status, 400, "{query}");
    }
}

#[tokio::test]
async fn commands_say_what_the_client_calls_itself_within_bounds() {
    let client = Client::dev();
    let long = "a".repeat(300);
    let headers = [("content-type", "application/json"), ("user-agent", &*long)];
    let body = r#"{"name":"research"}"#;
    client.call("POST", "/api/v1/projects", &headers, body).await;
    let origin = client.last_command().origin.expect("an origin");
    assert_eq!(origin.user_agent, Some("a".repeat(200)));
    // In memory there is no connection.
    assert_eq!(origin.address, None);
}

#[tokio::test]
async fn an_export_is_recorded_before_anything_is_given_out() {
    let client = Client::dev();
    let answer = client.get("/api/v1/audit/export?from=3&to=9&all_workspaces=true").await;
    let media_type = answer.header("content-type");
    assert_eq!((answer.status.as_u16(), media_type), (200, "application/x-ndjson"));
    assert!(answer.text.ends_with("{\"end\":{}}\n"), "{}", answer.text);
    let exported =
        access::Event::AuditExported { from: Some(3), to: Some(9), all_workspaces: true };
    assert_eq!(client.last_command().command, Command::RecordAccess(exported));
    let asked = client.world.exports.lock().expect("lock").pop().expect("an export");
    assert_eq!((asked.workspace_id, asked.from, asked.to), (None, Some(3), Some(9)));
    assert_eq!((&*asked.by, asked.at), ("dev", start_time()));
    for query in ["from=0", "to=x", "all_workspaces=maybe", "limit=1"] {
        let answer = client.get(&format!("/api/v1/audit/export?{query}")).await;
        assert_eq!(answer.status, 400, "{query}");
    }
    let full = Rejection::new(RejectionKind::Unavailable, "journal_full", "no room");
    *client.world.refuse.lock().expect("lock") = Some(full);
    for path in ["/api/v1/audit/export", "/api/v1/audit"] {
        let answer = client.get(path).await;
        assert_eq!((answer.status.as_u16(), &*answer.code()), (503, "journal_full"), "{path}");
    }
}

#[tokio::test]
async fn the_logs_of_all_workspaces_are_the_administrators() {
    let administrator = Administrator::new(&"a".repeat(32), home());
    let client = Client::new(AuthConfig::Keys { administrator: Some(administrator) });
    let key = grant(&client, home(), &[Scope::Admin], None);
    let everything = format!("Bearer {}", "a".repeat(32));
    for (key, seen) in [(key, Some(home())), (everything, None)] {
        let path = "/api/v1/logs?level=error&run_id=run_x&trace_id=t&role=executor&q=late&tree=true\
                    &from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z";
        let answer = client.call("GET", path, &[("authorization", &key)], "").await;
        assert_eq!((answer.status.as_u16(), answer.json()), (200, json!({"items": []})));
        let (workspace, filter) =
            client.world.log_filters.lock().expect("lock").pop().expect("one");
        assert_eq!(workspace, seen);
        let asked = json!({"level": "error", "run_id": "run_x", "trace_id": "t",
            "role": "executor", "q": "late", "tree": true, "from": "2026-01-01T00:00:00Z",
            "to": "2026-01-02T00:00:00Z"});
        assert_eq!(json!(filter), asked);
        for path in ["/api/v1/logs?level=loud", "/api/v1/logs?tree=true"] {
            let wrong = client.call("GET", path, &[("authorization", &key)], "").await;
            assert_eq!(wrong.code(), "invalid_parameter");
        }
    }
}
