//! Order, provenance, secrets, and errors that say where.

use serde::{Deserialize, Serialize};

use super::*;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    listen: String,
    workers: u32,
    name: String,
    admin_key: Option<String>,
    database_url: Option<String>,
    hosts: Vec<String>,
    limits: Limits,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Limits {
    queue: u32,
    batch: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:0".into(),
            workers: 4,
            name: "here".into(),
            admin_key: None,
            database_url: None,
            hosts: Vec::new(),
            limits: Limits { queue: 10, batch: 20 },
        }
    }
}

#[derive(Default, Serialize)]
struct Flags {
    workers: Option<u32>,
}

fn sources(environment: &[(&str, &str)]) -> Sources {
    let owned = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
    Sources {
        environment: environment.iter().map(owned).collect(),
        prefix: "APP_",
        ..Sources::default()
    }
}

fn load(sources: &Sources, flags: &Flags) -> Result<Loaded<Settings>, ConfigError> {
    super::load(sources, &Settings::default(), flags)
}

fn setting<'a, T>(loaded: &'a Loaded<T>, key: &str) -> (&'a str, &'a str) {
    let setting = loaded.settings.iter().find(|setting| setting.key == key);
    let setting = setting.expect("every key is listed");
    (&setting.value, &setting.source)
}

#[test]
fn a_flag_goes_before_the_environment_before_the_file_before_the_default() {
    let dir = tempfile::tempdir().expect("a folder for the test");
    let file = dir.path().join("app.toml");
    let text = "workers = 5\nlisten = 'file'\nname = 'file'\n[limits]\nqueue = 11\n";
    std::fs::write(&file, text).expect("the folder is writable");
    let environment = [
        ("APP_WORKERS", "6"),
        ("APP_LISTEN", "8080"),
        ("APP_LIMITS__BATCH", "21"),
        ("APP_LOG", "x"),
    ];
    let sources = Sources { file: Some(file.clone()), ..sources(&environment) };
    let loaded = load(&sources, &Flags { workers: Some(7) }).expect("all sources are right");
    let wanted = Settings {
        listen: "8080".into(),
        workers: 7,
        name: "file".into(),
        limits: Limits { queue: 11, batch: 21 },
        ..Settings::default()
    };
    assert_eq!(loaded.value, wanted);
    let from_file = format!("file {}", file.display());
    assert_eq!(setting(&loaded, "workers"), ("7", "flag --workers"));
    assert_eq!(setting(&loaded, "listen"), ("8080", "variable APP_LISTEN"));
    assert_eq!(setting(&loaded, "name"), ("file", &*from_file));
    assert_eq!(setting(&loaded, "limits.queue"), ("11", &*from_file));
    assert_eq!(setting(&loaded, "limits.batch"), ("21", "variable APP_LIMITS__BATCH"));
    assert_eq!(setting(&loaded, "admin_key"), ("", "default"));
}

#[test]
fn texts_of_the_environment_become_what_the_key_is() {
    let environment = [("APP_ADMIN_KEY", "0123"), ("APP_HOSTS", "a.internal, 10.0.0.1,7,")];
    let loaded = load(&sources(&environment), &Flags::default()).expect("both are right");
    assert_eq!(loaded.value.admin_key.as_deref(), Some("0123"));
    assert_eq!(setting(&loaded, "admin_key"), ("(hidden)", "variable APP_ADMIN_KEY"));
    assert_eq!(loaded.value.hosts, ["a.internal", "10.0.0.1", "7"]);
    assert_eq!(setting(&loaded, "hosts").0, "a.internal,10.0.0.1,7");
}

#[test]
fn well_known_variables_need_no_prefix_and_show_no_password() {
    let environment = [("DATABASE_URL", "postgres://me:pa@ss@db:5432/x"), ("NATS_URL", "nats://n")];
    let loaded = load(&sources(&environment), &Flags::default())
        .expect("a variable without a key is no error");
    assert_eq!(loaded.value.database_url.as_deref(), Some("postgres://me:pa@ss@db:5432/x"));
    let shown = ("postgres://me:(hidden)@db:5432/x", "variable DATABASE_URL");
    assert_eq!(setting(&loaded, "database_url"), shown);

    let both = [("DATABASE_URL", "postgres://a"), ("APP_DATABASE_URL", "postgres://b")];
    let loaded = load(&sources(&both), &Flags::default()).expect("both are right");
    assert_eq!(loaded.value.database_url.as_deref(), Some("postgres://b"));
}

#[test]
fn errors_name_the_key_and_the_source() {
    let dir = tempfile::tempdir().expect("a folder for the test");
    let file = dir.path().join("app.toml");
    std::fs::write(&file, "workrs = 1").expect("the folder is writable");
    let wrong = |sources: Sources| {
        let loaded = load(&sources, &Flags::default());
        loaded.expect_err("a source is wrong").to_string()
    };
    let unknown = wrong(Sources { file: Some(file), ..sources(&[]) });
    assert!(unknown.contains("workrs") && unknown.contains("app.toml"), "{unknown}");
    let mistyped = wrong(sources(&[("APP_WORKERS", "many")]));
    assert!(mistyped.contains("workers") && mistyped.contains("APP_WORKERS"), "{mistyped}");
}

#[test]
fn a_file_that_was_named_has_to_exist() {
    let sources = Sources { file: Some("/nowhere/app.toml".into()), ..sources(&[]) };
    let loaded = load(&sources, &Flags::default());
    assert!(matches!(loaded, Err(ConfigError::NoFile(_))));
}
