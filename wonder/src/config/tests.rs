//! Precedence, provenance and refusals of the configuration.

use super::*;

fn load_with(
    flags: &ServerArgs,
    env: &[(&str, &str)],
    file: Option<&str>,
) -> anyhow::Result<Loaded<Config>> {
    let folder = tempfile::tempdir().expect("a folder for the file");
    let path = folder.path().join("wonder.toml");
    if let Some(text) = file {
        std::fs::write(&path, text).expect("the file is written");
    }
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    load_from(flags, env.collect(), file.map(|_| path), AuthMode::Keys)
}

fn source(loaded: &Loaded<Config>, key: &str) -> String {
    loaded
        .settings
        .iter()
        .find(|setting| setting.key == key)
        .expect("the key is known")
        .source
        .clone()
}

#[test]
fn a_flag_wins_over_the_environment_over_the_file_over_the_default() {
    let file = "listen = \"127.0.0.1:1\"\nlog = \"debug\"\nexecutor_concurrency = 3\n";
    let env = [("WONDER_LISTEN", "127.0.0.1:2"), ("WONDER_EXECUTOR_CONCURRENCY", "4")];
    let flags =
        ServerArgs { listen: Some("127.0.0.1:3".parse().expect("address")), ..Default::default() };

    let loaded = load_with(&flags, &env, Some(file)).expect("it is valid");

    assert_eq!(loaded.value.listen.port(), 3);
    assert_eq!(loaded.value.executor_concurrency, 4);
    assert_eq!(loaded.value.log, "debug");
    assert_eq!(loaded.value.auth, AuthMode::Keys);
    assert_eq!(source(&loaded, "listen"), "flag --listen");
    assert_eq!(source(&loaded, "executor_concurrency"), "variable WONDER_EXECUTOR_CONCURRENCY");
    assert!(source(&loaded, "log").ends_with("wonder.toml"));
    assert_eq!(source(&loaded, "auth"), "default");
}

#[test]
fn the_data_folder_follows_xdg_and_home() {
    let xdg = [("XDG_DATA_HOME", "/data"), ("HOME", "/home/a")];
    let of = |env: &[(&str, &str)]| {
        load_with(&ServerArgs::default(), env, None).expect("it is valid").value.data_dir
    };
    assert_eq!(of(&xdg), Path::new("/data/wonder"));
    assert_eq!(of(&xdg[1..]), Path::new("/home/a/.local/share/wonder"));
}

#[test]
fn development_has_a_data_folder_of_its_own() {
    let env = vec![("XDG_DATA_HOME".to_owned(), "/data".to_owned())];
    let dev = load_from(&ServerArgs::default(), env.clone(), None, AuthMode::Dev);
    assert_eq!(dev.expect("it is valid").value.data_dir, Path::new("/data/wonder/dev"));
    let flags = ServerArgs { data_dir: Some("/x".into()), ..ServerArgs::default() };
    let chosen = load_from(&flags, env, None, AuthMode::Dev).expect("it is valid");
    assert_eq!(chosen.value.data_dir, Path::new("/x"));
}

#[test]
fn an_administrators_key_is_taken_as_text_and_never_shown() {
    let env = [("WONDER_ADMIN_KEY", "0123")];
    let loaded = load_with(&ServerArgs::default(), &env, None).expect("it is valid");
    assert_eq!(loaded.value.admin_key.as_ref().map(Secret::reveal), Some("0123"));
    assert!(loaded.settings.iter().all(|setting| !setting.value.contains("0123")));
    assert!(!format!("{:?}", loaded.value).contains("0123"));
}

#[test]
fn a_throwaway_server_keeps_what_is_configured_but_for_place_and_people() {
    let env = [
        ("WONDER_ALLOW_PRIVATE_HOSTS", "a.internal"),
        ("WONDER_ADMIN_KEY", "0123"),
        ("WONDER_LISTEN", "0.0.0.0:80"),
    ];
    let loaded = load_with(&ServerArgs::default(), &env, Some("executor_concurrency = 3\n"));
    let config = loaded.expect("it is valid").value.throwaway(Path::new("/tmp/x"));
    assert_eq!(config.allow_private_hosts, ["a.internal"]);
    assert_eq!(config.executor_concurrency, 3);
    assert_eq!(config.data_dir, Path::new("/tmp/x"));
    assert_eq!((config.listen.port(), config.listen.ip().is_loopback()), (0, true));
    assert_eq!((config.auth, config.admin_key), (AuthMode::Dev, None));
}

#[test]
fn development_logs_less() {
    assert_eq!(Config::unconfigured(AuthMode::Dev).log, "warn,executor::attempts=error");
    assert_eq!(Config::unconfigured(AuthMode::Keys).log, "info");
}

#[test]
fn lists_may_be_written_with_commas() {
    let env = [("WONDER_ALLOW_PRIVATE_HOSTS", "a.internal, 10.0.0.1,")];
    let loaded = load_with(&ServerArgs::default(), &env, None).expect("it is valid");
    assert_eq!(loaded.value.allow_private_hosts, ["a.internal", "10.0.0.1"]);
}

#[test]
fn what_is_wrong_is_refused_by_name() {
    let refused = |env: &[(&str, &str)], file: Option<&str>| {
        let error = load_with(&ServerArgs::default(), env, file).expect_err("it is refused");
        format!("{error:#}")
    };
    assert!(refused(&[], Some("lisen = \"x\"")).contains("lisen"));
    assert!(refused(&[("WONDER_AUTH", "open")], None).contains("WONDER_AUTH"));
    assert!(refused(&[("WONDER_EXECUTOR_CONCURRENCY", "many")], None).contains("many"));
    assert!(refused(&[("WONDER_EXECUTOR_CONCURRENCY", "0")], None).contains("1 to 10000"));
}

#[test]
fn a_process_that_could_not_do_its_part_is_refused() {
    let database = ("DATABASE_URL", "postgres://someone:hidden@localhost/wonder");
    let nats = ("NATS_URL", "nats://localhost:4222");
    let load = |roles: &str, env: &[(&str, &str)]| {
        let env: Vec<_> = env.iter().copied().chain([("WONDER_ROLES", roles)]).collect();
        load_with(&ServerArgs::default(), &env, None)
    };
    let refused = |roles: &str, env: &[(&str, &str)]| {
        format!("{:#}", load(roles, env).expect_err("it is refused"))
    };
    assert!(refused("gateway", &[database]).contains("NATS_URL"));
    assert!(refused("commands", &[nats]).contains("DATABASE_URL"));
    assert!(refused("gateway,workers", &[database, nats]).contains("WONDER_ROLES"));
    for roles in ["gateway", "executor", "gateway,executor"] {
        load(roles, &[nats]).expect("it asks others for data");
    }
    load("commands,projections", &[database, nats]).expect("it has both");
    let whole = load_with(&ServerArgs::default(), &[database], None).expect("all roles in one");
    assert_eq!(whole.value.roles, Role::ALL);
    assert!(whole.settings.iter().all(|setting| !setting.value.contains("hidden@")));
}

#[test]
fn who_develops_or_runs_once_uses_no_database() {
    let env = [("DATABASE_URL", "postgres://localhost/other"), ("NATS_URL", "nats://localhost")];
    let config = load_with(&ServerArgs::default(), &env, None).expect("it is valid").value;
    let alone = config.alone();
    assert!(alone.database_url.is_none() && alone.nats_url.is_none());
    assert_eq!(alone.roles, Role::ALL);
}
