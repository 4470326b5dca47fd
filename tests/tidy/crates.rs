//! Which package may depend on which: the table of the architecture, as data.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

use crate::sources::{none, root};

/// A package: the packages of the workspace that it may use, and the crates that it must not.
struct Rule {
    package: &'static str,
    may_use: &'static [&'static str],
    never: &'static [&'static str],
}

const TRANSPORTS: &[&str] =
    &["tokio", "axum", "tower", "tower-http", "hyper", "reqwest", "sqlx", "rusqlite", "async-nats"];

/// The table. `wonder` wires everything, and the tests see everything.
const TABLE: &[Rule] = &[
    Rule {
        package: "domain",
        may_use: &[],
        never: &[
            "tokio",
            "tokio-util",
            "futures",
            "sqlx",
            "rusqlite",
            "async-nats",
            "axum",
            "reqwest",
            "cqrs-es",
            "rand",
            "tracing",
        ],
    },
    Rule { package: "protocol", may_use: &["domain"], never: TRANSPORTS },
    Rule { package: "chassis", may_use: &[], never: &["axum", "reqwest", "cqrs-es", "cel"] },
    Rule {
        package: "commands",
        may_use: &["domain", "protocol", "chassis"],
        never: &["axum", "reqwest", "rusqlite"],
    },
    Rule {
        package: "projections",
        may_use: &["domain", "protocol", "chassis"],
        never: &["cqrs-es", "axum", "reqwest"],
    },
    Rule {
        package: "executor",
        may_use: &["domain", "protocol", "chassis"],
        never: &["sqlx", "rusqlite", "axum", "cqrs-es"],
    },
    Rule {
        package: "gateway",
        may_use: &["domain", "protocol", "chassis"],
        never: &["sqlx", "rusqlite", "cqrs-es", "reqwest"],
    },
    Rule {
        package: "wonder",
        may_use: &[
            "domain",
            "protocol",
            "chassis",
            "commands",
            "projections",
            "executor",
            "gateway",
        ],
        never: &["axum", "sqlx", "cqrs-es", "cel"],
    },
    Rule {
        package: "system-tests",
        may_use: &["domain", "protocol", "chassis", "commands", "projections"],
        never: &["cqrs-es"],
    },
    Rule { package: GRAPHS, may_use: &[], never: TRANSPORTS },
];

/// What tests of the engine share: it knows no other package.
const GRAPHS: &str = "graphs";

/// What nobody may have in the whole build: a second TLS, a schema crate that fetches.
const NOWHERE: &[&str] = &["openssl-sys", "native-tls"];

/// The workspace, with its graph resolved for this machine only: the crates of others needn't be
/// here.
fn metadata() -> Metadata {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("-vV").output().expect("rustc is here");
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let platform = format!("--filter-platform={}", host.expect("rustc says where it is"));
    let mut command = MetadataCommand::new();
    command.manifest_path(root().join("Cargo.toml"));
    command.other_options(["--locked".to_owned(), platform]);
    command.exec().unwrap_or_else(|error| panic!("cargo metadata failed: {error}"))
}

/// The names of a package's dependencies of a kind.
fn dependencies(package: &Package, kind: DependencyKind) -> BTreeSet<&str> {
    let of_kind = package.dependencies.iter().filter(|dependency| dependency.kind == kind);
    of_kind.map(|dependency| dependency.name.as_str()).collect()
}

#[test]
fn every_edge_stands_in_the_table() {
    let metadata = metadata();
    let packages: BTreeMap<&str, &Package> = metadata
        .workspace_packages()
        .into_iter()
        .map(|package| (package.name.as_str(), package))
        .collect();
    let ruled: BTreeSet<&str> = TABLE.iter().map(|rule| rule.package).collect();
    assert_eq!(packages.keys().copied().collect::<BTreeSet<_>>(), ruled, "packages and table");
    let mut found = Vec::new();
    for Rule { package, may_use, never } in TABLE {
        for name in dependencies(packages[package], DependencyKind::Normal) {
            if packages.contains_key(name) && !may_use.contains(&name) {
                found.push(format!("{package} uses {name}"));
            }
            if never.contains(&name) {
                found.push(format!("{package} must never use {name}"));
            }
        }
        // Tests may use other things, but no service may lean on another one even there.
        for name in dependencies(packages[package], DependencyKind::Development) {
            let free = ["wonder", "system-tests"].contains(package);
            let is_known = may_use.contains(&name) || name == GRAPHS;
            if packages.contains_key(name) && !is_known && !free {
                found.push(format!("{package}'s tests use {name}"));
            }
        }
    }
    none("the table of the architecture allows no such edge", found);
}

/// What a crate leans on through others, in a build without tests.
fn reached(metadata: &Metadata, from: &str) -> BTreeSet<String> {
    let resolve = metadata.resolve.as_ref().expect("the graph is resolved");
    let nodes: BTreeMap<_, _> = resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let start = metadata.workspace_packages().into_iter().find(|one| one.name.as_str() == from);
    let mut next = vec![&start.expect("it is a package of the workspace").id];
    let (mut seen, mut names) = (BTreeSet::new(), BTreeSet::new());
    while let Some(id) = next.pop() {
        if !seen.insert(id) {
            continue;
        }
        names.insert(metadata[id].name.to_string());
        let normal = nodes[id].deps.iter().filter(|dependency| {
            dependency.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal)
        });
        next.extend(normal.map(|dependency| &dependency.pkg));
    }
    names
}

#[test]
fn meaning_and_shape_reach_no_transport_through_others_either() {
    let metadata = metadata();
    let mut found = Vec::new();
    for package in ["domain", "protocol"] {
        let reached = reached(&metadata, package);
        let bad = ["tokio", "sqlx", "rusqlite", "axum", "hyper", "reqwest", "cqrs-es"];
        let bad = bad.iter().filter(|name| reached.contains(**name));
        found.extend(bad.map(|name| format!("{package} reaches {name}")));
    }
    let everything = reached(&metadata, "wonder");
    let bad = NOWHERE.iter().filter(|name| everything.contains(**name));
    found.extend(bad.map(|name| format!("wonder reaches {name}")));
    none("a package must not reach it", found);
}
