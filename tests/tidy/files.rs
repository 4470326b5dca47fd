//! How source files look.

use crate::sources::{Source, none, root, rust};

/// Lines at which a file stops.
const LINES: usize = 500;
/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 5] = ["utils", "common", "helpers", "misc", "manager"];

/// The places where a rule is broken: each file is looked at by the rule.
fn findings(rule: impl Fn(&Source) -> Vec<String>) -> Vec<String> {
    let of = |source: &Source| {
        let found = rule(source).into_iter();
        found.map(|what| format!("{}: {what}", source.path)).collect::<Vec<_>>()
    };
    rust().iter().flat_map(of).collect()
}

/// Lines that hold one of some words, with their numbers. The words are given in halves, so that
/// this file doesn't hold them.
fn lines_with(text: &str, words: &[[&str; 2]]) -> Vec<String> {
    let words: Vec<String> = words.iter().map(|halves| halves.concat()).collect();
    let holds = |line: &&str| words.iter().any(|word| line.contains(word.as_str()));
    let numbered = text.lines().enumerate().filter(|(_, line)| holds(line));
    numbered.map(|(number, line)| format!("{}: {}", number + 1, line.trim())).collect()
}

#[test]
fn a_file_begins_with_what_it_is_for_and_stops_in_time() {
    none(
        "a file begins with `//!` and has at most 500 lines",
        findings(|source| {
            let mut found = Vec::new();
            if !source.text.starts_with("//! ") {
                found.push("the first line doesn't say what it is for".to_owned());
            }
            let lines = source.text.lines().count();
            if lines > LINES {
                found.push(format!("{lines} lines"));
            }
            found
        }),
    );
}

#[test]
fn names_say_what_is_inside() {
    none(
        "`foo.rs` stands beside `foo/`, and names say what is inside",
        findings(|source| {
            let parts = source.path.trim_end_matches(".rs").split('/');
            let bad = parts.filter(|part| *part == "mod" || EMPTY_NAMES.contains(part));
            bad.map(|part| format!("is called {part}")).collect()
        }),
    );
}

#[test]
fn nothing_is_left_for_later() {
    let words = [["#[ign", "ore"], ["to", "do!("], ["unimpl", "emented!("]];
    none("nothing is left for later", findings(|source| lines_with(&source.text, &words)));
    let marks = [["FIX", "ME"], ["TO", "DO"], ["XX", "X"]].map(|halves| halves.concat());
    let marked = findings(|source| {
        let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '\\';
        let words = source.text.split(|c| !is_word(c));
        words.filter(|word| marks.iter().any(|mark| mark == word)).map(str::to_owned).collect()
    });
    none("nothing is marked for later", marked);
}

#[test]
fn lints_are_switched_off_with_a_reason() {
    let words = [["#[al", "low("], ["#![al", "low("]];
    none("use #[expect(…, reason = …)]", findings(|source| lines_with(&source.text, &words)));
    let expected = findings(|source| {
        let attribute = ["#[exp", "ect("].concat();
        let texts = source.text.split(&attribute).skip(1);
        let bare = texts.filter(|rest| {
            let end = rest.find(")]").unwrap_or(rest.len());
            !rest[..end].contains("reason =")
        });
        bare.map(|rest| rest.chars().take(40).collect()).collect()
    });
    none("an expected lint has a reason", expected);
}

#[test]
fn tests_wait_for_conditions() {
    let words = [["thread::", "sleep("], ["time::", "sleep("]];
    none(
        "a test waits for a condition, not for a time",
        findings(|source| match source.is_test() || source.path.starts_with("tests/") {
            true => lines_with(&source.text, &words),
            false => lines_with(&source.text[source.production().len()..], &words),
        }),
    );
}

#[test]
fn tables_are_made_in_migrations_only() {
    let words =
        [["create ta", "ble"], ["CREATE TA", "BLE"], ["alter ta", "ble"], ["create in", "dex"]];
    none("DDL stands in migrations/", findings(|source| lines_with(source.production(), &words)));
    assert!(root().join("migrations/sqlite").is_dir());
}

/// A framework, and the beginnings of the paths that may name it.
const AT_HOME: [(&str, &[&str]); 5] = [
    ("cqrs_es::", &["commands/src/store"]),
    ("axum::", &["gateway/", "executor/tests/", "tests/"]),
    ("sqlx::", &["projections/", "chassis/"]),
    (
        "rusqlite::",
        &[
            "chassis/",
            "tests/",
            "wonder/src/audit/tests",
            "wonder/src/bench",
            "wonder/src/cli/doctor",
        ],
    ),
    ("cel::", &["domain/"]),
];

#[test]
fn a_framework_has_one_home() {
    let rule = |source: &Source| {
        let strangers = AT_HOME.iter().filter(|(framework, homes)| {
            let outside = !homes.iter().any(|home| source.path.starts_with(home));
            let names = |line: &str| {
                let code = line.split("//").next().unwrap_or_default();
                let before = code.split(framework).next().unwrap_or_default();
                before.len() < code.len()
                    && !before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
            };
            outside && source.text.lines().any(names)
        });
        strangers.map(|(framework, homes)| format!("{framework} lives in {homes:?}")).collect()
    };
    none(
        "a framework is named in one place",
        findings(
            |source| {
                if source.path.starts_with("tests/tidy") { Vec::new() } else { rule(source) }
            },
        ),
    );
}
