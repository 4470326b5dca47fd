//! `wonder doctor`: checks folder, disk, port, lock, clock, server and keys, and says what to do.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Serialize;
use serde_json::{Value, json};

use super::Global;
use crate::client::{Answer, Client};
use crate::config::{self, AuthMode, Config, JOURNAL_FILE, ServerArgs};
use crate::exit::{Exit, Failure};
use crate::server;

/// Below this, a check warns; below a tenth of it, it fails.
const DISK_WARN_BYTES: u64 = 2 << 30;
const CLOCK_SKEW_WARN_S: i64 = 5;

/// The same flags as `wonder serve`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 where nothing failed (warnings may stand), else 1")]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    server: ServerArgs,
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Check {
    check: &'static str,
    verdict: Verdict,
    /// What was found and, if it isn't well, what to do.
    message: String,
}

impl Check {
    fn new(check: &'static str, verdict: Verdict, message: impl Into<String>) -> Self {
        Self { check, verdict, message: message.into() }
    }
}

pub(crate) async fn execute(global: &Global, args: DoctorArgs) -> Result<Exit, Failure> {
    let mut checks = Vec::new();
    match config::load(&args.server, AuthMode::Keys) {
        Ok(loaded) => {
            checks.push(Check::new("config", Verdict::Ok, "is valid"));
            checks.extend(local(&loaded.value));
        }
        Err(error) => checks.push(Check::new("config", Verdict::Fail, format!("{error:#}"))),
    }
    checks.extend(remote(&Client::new(&global.client)?).await);
    let failed = checks.iter().any(|check| check.verdict == Verdict::Fail);
    let answer = Answer { text: json!({"items": checks}).to_string() };
    let columns = [("verdict", "/verdict"), ("check", "/check"), ("message", "/message")];
    global.output.list(&answer, &columns)?;
    Ok(if failed { Exit::Failed } else { Exit::Completed })
}

/// What can be seen from this machine alone.
fn local(config: &Config) -> Vec<Check> {
    let mut checks = vec![writable(&config.data_dir), disk(&config.data_dir)];
    checks.push(lock(&config.data_dir));
    checks.push(Check::new("sqlite", Verdict::Ok, format!("{}, built in", rusqlite::version())));
    checks.push(match TcpListener::bind(config.listen) {
        Ok(_) => Check::new("port", Verdict::Ok, format!("{} is free", config.listen)),
        Err(error) => Check::new(
            "port",
            Verdict::Warn,
            format!("{}: {error}; fine if that is the server, else use --listen", config.listen),
        ),
    });
    checks.push(match server::check_exposure(config) {
        Ok(()) => Check::new("exposure", Verdict::Ok, "no stranger is let in"),
        Err(failure) => Check::new("exposure", Verdict::Fail, failure.to_string()),
    });
    checks
}

/// The folder itself where it is there, else the nearest one above it that is.
fn nearest(folder: &Path) -> PathBuf {
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    absolute.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

fn writable(folder: &Path) -> Check {
    let place = nearest(folder);
    match tempfile::tempfile_in(&place) {
        Ok(_) => Check::new("data folder", Verdict::Ok, folder.display().to_string()),
        Err(error) => Check::new(
            "data folder",
            Verdict::Fail,
            format!(
                "{} is not writable ({error}): choose another with --data-dir",
                place.display()
            ),
        ),
    }
}

fn disk(folder: &Path) -> Check {
    match rustix::fs::statvfs(nearest(folder)) {
        Ok(disk) => free_disk(disk.f_bavail.saturating_mul(disk.f_frsize)),
        Err(error) => Check::new("disk", Verdict::Warn, format!("can't be read: {error}")),
    }
}

fn free_disk(free: u64) -> Check {
    let verdict = match free {
        _ if free < DISK_WARN_BYTES / 10 => Verdict::Fail,
        _ if free < DISK_WARN_BYTES => Verdict::Warn,
        _ => Verdict::Ok,
    };
    let advice = if verdict == Verdict::Ok { "" } else { ": make room, histories grow" };
    Check::new("disk", verdict, format!("{} MiB free{advice}", free >> 20))
}

/// Whether another process holds the journal.
fn lock(folder: &Path) -> Check {
    let check = |verdict, message: &str| Check::new("lock", verdict, message);
    match File::open(folder.join(lock_file())) {
        Err(_) => check(Verdict::Ok, "no server has used this folder yet"),
        Ok(file) => match file.try_lock() {
            Ok(()) => check(Verdict::Ok, "no server holds this folder"),
            Err(std::fs::TryLockError::WouldBlock) => {
                check(Verdict::Warn, "a server holds this folder; fine if it is meant to run")
            }
            Err(std::fs::TryLockError::Error(error)) => {
                check(Verdict::Warn, &format!("can't be tried: {error}"))
            }
        },
    }
}

/// As the journal names it.
fn lock_file() -> String {
    format!("{JOURNAL_FILE}.lock")
}

/// What the server says, if it is there.
async fn remote(client: &Client) -> Vec<Check> {
    let ready = match client.get_plain("/readyz").await {
        Ok(ready) => ready,
        Err(failure) => {
            let message = format!("{failure}; start one with `wonder dev`");
            return vec![Check::new("server", Verdict::Warn, message)];
        }
    };
    let mut checks = vec![match ready {
        (200, _) => Check::new("server", Verdict::Ok, format!("{} is ready", client.base())),
        (status, body) => {
            let excerpt: String = body.chars().take(300).collect();
            Check::new("server", Verdict::Fail, format!("not ready ({status}): {excerpt}"))
        }
    }];
    if let Ok((200, text)) = client.get_plain("/openapi.json").await {
        checks.push(version(&text));
    }
    checks.push(match client.get("/model-profiles", &[("limit", "200".to_owned())]).await {
        Ok(answer) => {
            keys(&answer.read().unwrap_or(Value::Null), &|name| std::env::var_os(name).is_some())
        }
        Err(failure) => Check::new("model keys", Verdict::Warn, format!("unknown: {failure}")),
    });
    checks.push(clock(client).await);
    checks
}

fn version(openapi: &str) -> Check {
    let document: Value = serde_json::from_str(openapi).unwrap_or_default();
    let (theirs, ours) = (document["info"]["version"].as_str(), env!("CARGO_PKG_VERSION"));
    match theirs {
        Some(theirs) if theirs == ours => {
            Check::new("version", Verdict::Ok, format!("server and program are {ours}"))
        }
        Some(theirs) => Check::new(
            "version",
            Verdict::Warn,
            format!("the server is {theirs}, this program {ours}: use the same"),
        ),
        None => Check::new("version", Verdict::Warn, "the server doesn't say its version"),
    }
}

/// Names only: a key's value is never read.
fn keys(profiles: &Value, is_set: &dyn Fn(&str) -> bool) -> Check {
    let items = profiles["items"].as_array().cloned().unwrap_or_default();
    let named = |item: &Value| {
        let name = item.pointer("/spec/api_key_env").or_else(|| item.pointer("/api_key_env"));
        name.and_then(Value::as_str).map(str::to_owned)
    };
    let mut missing: Vec<_> = items.iter().filter_map(named).filter(|name| !is_set(name)).collect();
    missing.sort();
    missing.dedup();
    if missing.is_empty() {
        return Check::new("model keys", Verdict::Ok, format!("{} model profiles", items.len()));
    }
    let message = format!(
        "not set in this environment: {}; set them where the server runs",
        missing.join(", ")
    );
    Check::new("model keys", Verdict::Warn, message)
}

/// The server's clock against ours.
async fn clock(client: &Client) -> Check {
    match client.server_time().await {
        Some(theirs) => {
            let ours = chrono::DateTime::<chrono::Utc>::from(SystemTime::now());
            skew((theirs - ours).num_seconds())
        }
        None => Check::new("clock", Verdict::Warn, "the server doesn't say its time"),
    }
}

fn skew(seconds: i64) -> Check {
    if seconds.abs() <= CLOCK_SKEW_WARN_S {
        return Check::new("clock", Verdict::Ok, "server and program agree");
    }
    let message = format!("the server is {seconds} s ahead of this machine: set both by NTP");
    Check::new("clock", Verdict::Warn, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_fills_up_warns_and_then_fails() {
        assert_eq!(free_disk(DISK_WARN_BYTES).verdict, Verdict::Ok);
        assert_eq!(free_disk(DISK_WARN_BYTES - 1).verdict, Verdict::Warn);
        assert_eq!(free_disk(1).verdict, Verdict::Fail);
    }

    #[test]
    fn keys_that_are_not_set_are_named_once() {
        let profiles = json!({"items": [
            {"spec": {"api_key_env": "A_KEY"}}, {"spec": {"api_key_env": "B_KEY"}},
            {"spec": {"api_key_env": "A_KEY"}}, {"spec": {}}
        ]});
        let check = keys(&profiles, &|name| name == "B_KEY");
        assert_eq!(check.verdict, Verdict::Warn);
        assert!(check.message.contains("A_KEY;"), "{}", check.message);
        assert_eq!(keys(&profiles, &|_| true).verdict, Verdict::Ok);
    }

    #[test]
    fn a_held_lock_is_seen() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(lock(folder.path()).verdict, Verdict::Ok);
        let held = File::create(folder.path().join(lock_file())).expect("the lock file");
        held.lock().expect("it is free");
        assert_eq!(lock(folder.path()).verdict, Verdict::Warn);
    }

    #[test]
    fn versions_and_clocks_are_compared() {
        let same = format!(r#"{{"info": {{"version": "{}"}}}}"#, env!("CARGO_PKG_VERSION"));
        assert_eq!(version(&same).verdict, Verdict::Ok);
        assert_eq!(version(r#"{"info": {"version": "0.0.1"}}"#).verdict, Verdict::Warn);
        assert_eq!(skew(-1).verdict, Verdict::Ok);
        assert_eq!(skew(-60).verdict, Verdict::Warn);
    }
}
