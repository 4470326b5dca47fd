//! Every code that an error can have is explained on a page of its own.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;

use crate::sources::{none, root, rust};

/// Where a code stands in the source: the call, the kind of refusal, and the code.
const CALLS: &[&str] = &[
    // A refusal of a service.
    r#"Rejection::new\(\s*([A-Za-z:_]+),\s*"([a-z_]+)""#,
    // A refusal of the edge.
    r#"Problem::new\(\s*([A-Za-z:_]+),\s*"([a-z_]+)""#,
    // A table from a refusal to kind and code.
    r#"=> \(((?:RejectionKind::)?[A-Z][A-Za-z]+), "([a-z_]+)"\)"#,
];

/// The codes in the sources, and the first file of each. Defects of ours all go out as `internal`;
/// what they are called inside stands in logs only.
fn codes() -> BTreeMap<String, String> {
    let calls: Vec<Regex> =
        CALLS.iter().map(|call| Regex::new(call).expect("a regular expression")).collect();
    let mut codes = BTreeMap::new();
    for source in rust().iter().filter(|source| !source.is_test()) {
        for call in &calls {
            let found = call.captures_iter(source.production());
            for found in found.filter(|found| !found[1].ends_with("Internal")) {
                codes.entry(found[2].to_owned()).or_insert_with(|| source.path.clone());
            }
        }
    }
    for code in gateway::EDGE_CODES {
        codes.entry((*code).to_owned()).or_insert_with(|| "gateway::EDGE_CODES".to_owned());
    }
    codes.extend(problem_codes());
    codes
}

/// The codes of definitions' problems, from the variants of their enum.
fn problem_codes() -> Vec<(String, String)> {
    let path = "domain/src/definition/problem.rs";
    let text = std::fs::read_to_string(root().join(path)).expect("the enum is there");
    let start = text.find("pub enum ProblemCode {").expect("the enum is there");
    let end = text[start..].find("\n}").expect("it ends") + start;
    let variant = Regex::new(r"(?m)^    ([A-Z][A-Za-z]+),$").expect("a regular expression");
    let found = variant.captures_iter(&text[start..end]);
    let snake = |name: &str| {
        let mut out = String::new();
        for letter in name.chars() {
            if letter.is_ascii_uppercase() && !out.is_empty() {
                out.push('_');
            }
            out.push(letter.to_ascii_lowercase());
        }
        out
    };
    found.map(|found| (snake(&found[1]), path.to_owned())).collect()
}

fn pages() -> BTreeSet<String> {
    let folder = std::fs::read_dir(root().join("docs/errors")).expect("the pages are there");
    let names = folder.map(|entry| entry.expect("a page").file_name());
    let codes = names.filter_map(|name| Some(name.to_str()?.strip_suffix(".md")?.to_owned()));
    codes.collect()
}

#[test]
fn every_code_has_a_page() {
    let (codes, pages) = (codes(), pages());
    assert!(codes.len() > 40, "only {} codes were found in the sources", codes.len());
    let missing = codes.iter().filter(|(code, _)| !pages.contains(*code));
    none(
        "docs/errors/<code>.md is missing",
        missing.map(|(code, path)| format!("{code} ({path})")).collect(),
    );
}

#[test]
fn every_page_is_served_and_says_cause_and_remedy() {
    let served: BTreeSet<String> = gateway::documented_codes().map(ToString::to_string).collect();
    assert_eq!(served, pages(), "the pages in docs/errors and the ones that the edge serves");
    let mut found = Vec::new();
    for code in pages() {
        let path = root().join("docs/errors").join(format!("{code}.md"));
        let text = std::fs::read_to_string(path).expect("a page is UTF-8");
        if !text.starts_with(&format!("# {code}\n")) {
            found.push(format!("{code}: the title isn't the code"));
        }
        if text.lines().filter(|line| !line.trim().is_empty()).count() < 3 {
            found.push(format!("{code}: it doesn't say what to do"));
        }
    }
    none("a page says what happened and what to do", found);
}

#[test]
fn every_page_is_about_a_code_that_is_used() {
    let sources = rust();
    let known = codes();
    let is_used = |code: &String| {
        let literal = format!("\"{code}\"");
        let mut sources = sources
            .iter()
            .filter(|source| !source.is_test() && !source.path.ends_with("error_pages.rs"));
        known.contains_key(code) || sources.any(|source| source.production().contains(&literal))
    };
    let unused = pages().into_iter().filter(|code| !is_used(code)).collect();
    none("no error has this code any more", unused);
}
