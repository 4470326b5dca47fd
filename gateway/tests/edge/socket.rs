//! The stream as a WebSocket, over real connections: what it tells, whom it refuses, how it closes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use domain::ids::ApiKeyId;
use domain::resource::{Kind, Scope};
use futures::{SinkExt as _, StreamExt as _};
use gateway::{AuthConfig, Secret, ServeError, SystemEnvironment};
use protocol::ResourceView;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use tokio_util::sync::CancellationToken;

use crate::fakes::{Client, World, gateway as edge, home, run_id, start_time};

const DEV: fn() -> AuthConfig = || AuthConfig::Dev { workspace_id: home() };
const KEYS: AuthConfig = AuthConfig::Keys { administrator: None };

struct Server {
    world: Arc<World>,
    address: SocketAddr,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), ServeError>>,
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;
type Header<'a> = (&'static str, &'a str);

async fn serve(auth: AuthConfig) -> Server {
    let world = Arc::new(World::default());
    for event in ["run_started", "task_succeeded", "run_completed"] {
        world.record(home(), event);
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let mut gateway = edge(&world, auth);
    gateway.config.recheck_streams = Duration::from_millis(20);
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(gateway::serve(listener, gateway, shutdown.clone()));
    Server { world, address, shutdown, task }
}

impl Server {
    async fn connect(&self, query: &str, headers: &[Header<'_>]) -> Result<Socket, Error> {
        let url = format!("ws://{}/api/v1/stream{query}", self.address);
        let mut request = url.into_client_request().expect("a request");
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().expect("a header"));
        }
        connect_async(request).await.map(|(socket, _)| socket)
    }

    async fn open(&self, query: &str) -> Socket {
        self.connect(query, &[]).await.expect("it opens")
    }

    async fn refused(&self, query: &str, headers: &[Header<'_>]) -> u16 {
        match self.connect(query, headers).await {
            Err(Error::Http(response)) => response.status().as_u16(),
            other => panic!("not refused: {other:?}"),
        }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.expect("no panic").expect("a clean end");
    }
}

/// The next message, or the code that it is closed with.
async fn next(socket: &mut Socket) -> Result<Value, CloseCode> {
    let waiting = async {
        loop {
            match socket.next().await.expect("it is closed with a code").expect("a frame") {
                Message::Text(text) => return Ok(serde_json::from_str(&text).expect("json")),
                Message::Close(frame) => return Err(frame.expect("a code").code),
                _ => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("something comes")
}

async fn all(mut socket: Socket) -> (Vec<Value>, CloseCode) {
    let mut told = Vec::new();
    loop {
        match next(&mut socket).await {
            Ok(message) => told.push(message),
            Err(code) => return (told, code),
        }
    }
}

fn names(told: &[Value]) -> Vec<&str> {
    told.iter().filter_map(|message| message["event"].as_str()).collect()
}

fn of_run() -> String {
    format!("?run_id={}", run_id())
}

#[tokio::test]
async fn a_runs_stream_tells_what_its_server_sent_events_tell() {
    let server = serve(DEV()).await;
    let (told, code) = all(server.open(&of_run()).await).await;
    assert_eq!(code, CloseCode::Normal);
    let client = Client::dev();
    *client.world.events.lock().expect("lock") = server.world.events.lock().expect("lock").clone();
    let path = format!("/api/v1/runs/{}/events", run_id());
    let sse = client.call("GET", &path, &[("accept", "text/event-stream")], "").await.text;
    let blocks: Vec<_> = sse.split("\n\n").filter(|block| block.contains("data: ")).collect();
    assert_eq!(told.len(), blocks.len());
    for (message, block) in told.iter().zip(blocks) {
        let field = |name: &str| {
            let line = block.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
            line.expect("a field")
        };
        assert_eq!(message["id"], field("id"));
        assert_eq!(message["event"], field("event"));
        assert_eq!(message["data"].to_string(), field("data"));
    }
    server.stop().await;
}

#[tokio::test]
async fn what_goes_on_is_told_without_an_id() {
    let server = serve(DEV()).await;
    server.world.tell(run_id(), &["Hi"]);
    let mut socket = server.open("?ephemeral=true").await;
    let mut told = Vec::new();
    while told.len() < 4 {
        told.push(next(&mut socket).await.expect("a message"));
    }
    assert_eq!(names(&told), ["ephemeral", "run_started", "task_succeeded", "run_completed"]);
    assert_eq!((told[0].get("id"), &told[0]["data"]["payload"]["text"]), (None, &json!("Hi")));
    assert_eq!(told[0]["data"]["cursor"], "00000007:0");
    drop(socket);
    server.stop().await;
}

#[tokio::test]
async fn it_goes_on_after_a_cursor_and_heeds_its_filters() {
    let server = serve(DEV()).await;
    let run = of_run();
    for (query, wanted) in [
        ("&after=00000007:2", vec!["run_completed", "end"]),
        ("&after=00000007:3", vec!["end"]),
        ("&type=task_succeeded", vec!["task_succeeded", "end"]),
        ("&speed=10000", vec!["run_started", "task_succeeded", "run_completed", "end"]),
    ] {
        let (told, code) = all(server.open(&format!("{run}{query}")).await).await;
        assert_eq!((names(&told), code), (wanted, CloseCode::Normal), "{query}");
    }
    let mut workspace = server.open("?after=00000007:1&type=run_completed").await;
    assert_eq!(next(&mut workspace).await.expect("an event")["id"], "00000007:3");
    server.stop().await;
}

#[tokio::test]
async fn what_is_no_good_is_refused_before_the_upgrade() {
    let server = serve(DEV()).await;
    let nobody = domain::ids::RunId::derived("", "nobody");
    for (query, status) in [
        ("?after=00000007:99", 400),
        ("?after=x", 400),
        ("?speed=2", 400),
        ("?limit=2", 400),
        ("?run_id=x", 400),
        (&*format!("{}&aggregate_type=run", of_run()), 400),
        (&*format!("?run_id={nobody}"), 404),
    ] {
        assert_eq!(server.refused(query, &[]).await, status, "{query}");
    }
    let other = ("sec-websocket-protocol", "graphql-ws");
    assert_eq!(server.refused("", &[other]).await, 400);
    let elsewhere = format!("http://{}", server.address).replace("127.0.0.1", "localhost");
    for origin in ["https://example.com", "null", &elsewhere] {
        assert_eq!(server.refused("", &[("origin", origin)]).await, 403, "{origin}");
    }
    let own = format!("http://{}", server.address);
    assert!(server.connect("", &[("origin", &own)]).await.is_ok());
    server.stop().await;
    // As problems, with their codes.
    let client = Client::dev();
    let plain = client.get("/api/v1/stream").await;
    assert_eq!((plain.status.as_u16(), &*plain.code()), (426, "websocket_required"));
    let evil = [("origin", "https://example.com")];
    let evil = client.call("GET", "/api/v1/stream", &evil, "").await;
    assert_eq!((evil.status.as_u16(), &*evil.code()), (403, "cross_site_request"));
}

/// Puts a key into the world and answers it.
fn grant(world: &World) -> (String, ApiKeyId) {
    let id = ApiKeyId::derived("", "socket");
    let secret = Secret::new(&SystemEnvironment);
    let spec = json!({"workspace_id": home(), "name": "k", "secret_hash": secret.hash(),
        "scopes": [Scope::Read]});
    let stored = ResourceView {
        id: id.to_string(),
        kind: Kind::ApiKey,
        workspace_id: home().to_string(),
        project_id: None,
        name: "k".to_owned(),
        version: 1,
        archived: false,
        created_at: start_time(),
        updated_at: start_time(),
        spec,
    };
    world.resources.lock().expect("lock").insert(id.to_string(), stored);
    (secret.token(id), id)
}

#[tokio::test]
async fn a_key_comes_as_a_header_or_as_a_subprotocol_and_is_not_sent_back() {
    let server = serve(KEYS).await;
    let (key, id) = grant(&server.world);
    let wrong = format!("wonder.v1, bearer.{}", key.replace('_', "-"));
    assert_eq!(server.refused("", &[]).await, 401);
    assert_eq!(server.refused("", &[("sec-websocket-protocol", &wrong)]).await, 401);
    let query = format!("?api_key={key}");
    assert_eq!(server.refused(&query, &[]).await, 401);
    let bearer = format!("Bearer {key}");
    assert!(server.connect("", &[("authorization", &bearer)]).await.is_ok());
    let url = format!("ws://{}/api/v1/stream", server.address);
    let mut request = url.into_client_request().expect("a request");
    let offered = format!("wonder.v1, bearer.{key}").parse().expect("a header");
    request.headers_mut().insert("sec-websocket-protocol", offered);
    let (mut socket, response) = connect_async(request).await.expect("it opens");
    assert_eq!(response.headers()["sec-websocket-protocol"], "wonder.v1");
    assert!(!format!("{response:?}").contains(&key));
    for _ in 0..3 {
        next(&mut socket).await.expect("an event");
    }
    // The right is looked at again while it is open.
    server.world.resources.lock().expect("lock").remove(&id.to_string());
    *server.world.seconds.lock().expect("lock") += 10;
    let last = next(&mut socket).await.expect("why it ends");
    assert_eq!(
        (&last["event"], &last["data"]["code"]),
        (&json!("error"), &json!("unauthenticated"))
    );
    assert_eq!(last.get("id"), None);
    assert_eq!(next(&mut socket).await, Err(CloseCode::Policy));
    server.stop().await;
}

#[tokio::test]
async fn it_says_why_it_closes() {
    let server = serve(DEV()).await;
    let mut talker = server.open("?after=00000007:3").await;
    talker.send(Message::Ping("p".into())).await.expect("it is sent");
    talker.send(Message::text("hello")).await.expect("it is sent");
    assert_eq!(next(&mut talker).await, Err(CloseCode::Policy));
    let mut large = server.open("?after=00000007:3").await;
    large.send(Message::text("x".repeat(100_000))).await.ok();
    assert_eq!(next(&mut large).await, Err(CloseCode::Protocol));
    // A pause of 20,000 s at this speed, but none is longer than 10 s, and the end doesn't wait.
    server.world.record_after(home(), "run_resumed", 200);
    let slow = format!("{}&speed=0.01&after=00000007:2", of_run());
    let mut replayed = server.open(&slow).await;
    assert_eq!(next(&mut replayed).await.expect("the first")["event"], "run_completed");
    let mut open = server.open("?after=00000007:4").await;
    *server.world.lag.lock().expect("lock") = true;
    let (told, code) = all(server.open("").await).await;
    assert_eq!(told.last().expect("why")["data"]["code"], "reader_lagged");
    assert_eq!(code, CloseCode::Again);
    // The server waits until its sockets are closed.
    let stopping = tokio::spawn(server.stop());
    assert_eq!(next(&mut open).await, Err(CloseCode::Away));
    drop(open);
    stopping.await.expect("it ends");
}

#[tokio::test]
async fn a_client_that_takes_nothing_does_not_hold_up_the_end() {
    let server = serve(DEV()).await;
    for _ in 0..20_000 {
        server.world.record(home(), "task_succeeded");
    }
    let stuck = server.open("").await;
    server.stop().await;
    drop(stuck);
}
