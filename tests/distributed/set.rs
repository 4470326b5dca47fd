//! The set as `make up` starts it, seen by the command line.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use system_tests::{Shape, wait_for, within};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader, Lines};
use tokio::process::{Child, Command};

const WONDER: &str = env!("CARGO_BIN_EXE_wonder");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package stands in the tree")
}

fn run_of(server: &str) -> Vec<String> {
    let example = root().join("examples/retry-and-fallback");
    let workflow = example.join("workflow.yaml").display().to_string();
    let input = format!("@{}", example.join("input.json").display());
    let arguments =
        ["run", &workflow, "--input", &input, "--wait", "-o", "json", "--server", server];
    arguments.map(str::to_owned).to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_works_at_either_gateway_and_stands_at_both() {
    let platform = crate::platform(Shape::whole()).await;
    let expected = std::fs::read(root().join("examples/retry-and-fallback/expected.json"));
    let expected: Value =
        serde_json::from_slice(&expected.expect("the example is there")).expect("it is JSON");
    for (here, there) in [("gateway-1", "gateway-2"), ("gateway-2", "gateway-1")] {
        let arguments = run_of(platform.url(here));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let (status, ended, talk) = platform.wonder(&arguments).await;
        assert!(status.success(), "{status}: {talk}");
        let ended: Value = serde_json::from_str(&ended).expect("it prints JSON");
        assert_eq!(ended["output"], expected);
        let run_id = ended["run_id"].as_str().expect("a run's id");
        let shown = ["runs", "show", run_id, "-o", "json", "--server", platform.url(there)];
        // What is read follows what is written, after a while.
        let shown = wait_for("the end to be shown", || async {
            let (status, shown, talk) = platform.wonder(&shown).await;
            assert!(status.success(), "{status}: {talk}");
            let shown: Value = serde_json::from_str(&shown).expect("it prints JSON");
            (shown["status"] == "completed").then_some(shown)
        })
        .await;
        assert_eq!(shown["output"], expected);
        let again = ["replay", "--verify", run_id, "-o", "json", "--server", platform.url(there)];
        let (status, again, talk) = platform.wonder(&again).await;
        assert!(status.success(), "{status}: {talk}");
        let again: Value = serde_json::from_str(&again).expect("it prints JSON");
        assert_eq!(again["items"][0]["events"], shown["sequence"], "{again}");
    }
}

/// `scripts/up` with the binary under test.
struct Up {
    child: Child,
    talk: Lines<BufReader<Box<dyn AsyncRead + Unpin + Send>>>,
}

impl Up {
    /// Starts it and returns when it says that all of it is there.
    async fn start(data: &Path, port: u16) -> Self {
        let mut command = Command::new(root().join("scripts/up"));
        command
            .env("WONDER_DATA", data)
            .env("WONDER_PORT", port.to_string())
            .env("WONDER_BIN", WONDER)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().expect("the script can be started");
        let talk: Box<dyn AsyncRead + Unpin + Send> =
            Box::new(child.stderr.take().expect("it is a pipe"));
        let mut up = Self { child, talk: BufReader::new(talk).lines() };
        up.hear("Ctrl-C stops all of it").await;
        up
    }

    /// Reads what it says up to a line that begins so.
    async fn hear(&mut self, beginning: &str) {
        let mut heard = Vec::new();
        loop {
            let line = within("scripts/up to speak", self.talk.next_line()).await;
            match line.expect("it can be read") {
                Some(line) if line.starts_with(beginning) => return,
                Some(line) => heard.push(line),
                None => panic!("scripts/up ended after:\n{}", heard.join("\n")),
            }
        }
    }

    /// Ends it as Ctrl-C does.
    async fn stop(mut self) {
        let pid = self.child.id().expect("it runs").to_string();
        let told = Command::new("kill").args(["-TERM", &pid]).status().await;
        assert!(told.expect("it can be told").success());
        self.hear("stopped; the data is kept in").await;
        let status = within("scripts/up to end", self.child.wait()).await;
        assert!(status.expect("it can be waited for").success());
    }
}

/// Ten ports in a row that are free now.
fn free_ports() -> u16 {
    let is_free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
    let mut firsts = (0..500).map(|number| 14_000 + number * 10);
    firsts.find(|first| (*first..first + 10).all(is_free)).expect("ten free ports")
}

#[tokio::test(flavor = "multi_thread")]
async fn make_up_starts_all_of_it_and_keeps_its_data() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    // The database runs as another user.
    let anybody = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.path(), anybody).expect("the folder is ours");
    let (data, port) = (folder.path().join("data"), free_ports());
    let gateways = [0, 1].map(|number| format!("http://127.0.0.1:{}", port + number));
    let mut runs = Vec::new();
    for gateway in &gateways {
        let up = Up::start(&data, port).await;
        let ended = Command::new(WONDER).args(run_of(gateway)).output();
        let ended = within("a run", ended).await.expect("the binary can be started");
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
        let ended: Value = serde_json::from_slice(&ended.stdout).expect("it prints JSON");
        runs.push(ended["run_id"].as_str().expect("a run's id").to_owned());
        // What ran before the set was stopped is still there.
        for run_id in &runs {
            wait_for("the run to be shown", || async {
                let mut shown = Command::new(WONDER);
                shown.args(["runs", "show", run_id, "--server", gateway]);
                let shown = shown.output().await.expect("the binary can be started");
                shown.status.success().then_some(())
            })
            .await;
        }
        up.stop().await;
    }
}
