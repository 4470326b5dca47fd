//! A pattern's folder: its definition, its input, what happens in which order, what comes of it.

use std::path::{Path, PathBuf};

use domain::run::FailureKind;
use domain::run::event::Decision;
use domain::span::Span;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// An example of a pattern.
pub(crate) struct Pattern {
    /// The folder's name, which is the definition's too.
    pub(crate) name: String,
    pub(crate) source: String,
    pub(crate) input: Value,
    pub(crate) schedule: Vec<Step>,
    pub(crate) folder: PathBuf,
}

/// Something that happens to the run; exactly one of its first six.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    /// A worker has done this node (the branch of the lowest token).
    pub(crate) succeed: Option<String>,
    /// A worker has failed at this node.
    pub(crate) fail: Option<String>,
    /// A signal of this name comes.
    pub(crate) signal: Option<String>,
    /// Somebody answers the gate at this node.
    pub(crate) answer: Option<String>,
    /// So much time passes.
    pub(crate) clock: Option<Span>,
    /// The run is cancelled, for this reason.
    pub(crate) cancel: Option<String>,

    /// Which branch does or fails it.
    pub(crate) index: Option<u64>,
    /// The node's result; default: what its action says.
    pub(crate) result: Option<Value>,
    #[serde(default = "permanent")]
    pub(crate) kind: FailureKind,
    #[serde(default)]
    pub(crate) payload: Value,
    #[serde(default)]
    pub(crate) transient: bool,
    /// Nobody waits for the signal yet.
    #[serde(default)]
    pub(crate) early: bool,
    #[serde(default = "approve")]
    pub(crate) decision: Decision,
    #[serde(default)]
    pub(crate) value: Value,
}

const fn permanent() -> FailureKind {
    FailureKind::Permanent
}

const fn approve() -> Decision {
    Decision::Approve
}

/// What comes of it.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expected {
    pub(crate) status: String,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub(crate) output: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    /// What the start brought, and then each step of the schedule.
    pub(crate) trace: Vec<Vec<String>>,
    /// Pairs of lines whose first stands before the second, whatever the timing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) order: Vec<(String, String)>,
}

impl Expected {
    /// Whether the lines keep the order: each first of a pair comes before each second.
    pub(crate) fn check_order(&self, name: &str, lines: &[String]) {
        for (first, second) in &self.order {
            let last = lines.iter().rposition(|line| line == first);
            let last = last.unwrap_or_else(|| panic!("{name}: no {first:?} in {lines:?}"));
            let next = lines.iter().position(|line| line == second);
            let next = next.unwrap_or_else(|| panic!("{name}: no {second:?} in {lines:?}"));
            assert!(last < next, "{name}: {first:?} comes before {second:?}: {lines:?}");
        }
    }
}

/// All patterns that have an example, by number.
pub(crate) fn patterns() -> Vec<Pattern> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/patterns");
    let entries = std::fs::read_dir(&root).expect("the patterns can be listed");
    let mut folders: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry can be read").path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    folders.into_iter().map(Pattern::read).collect()
}

impl Pattern {
    fn read(folder: PathBuf) -> Self {
        let name = folder.file_name().expect("a folder's name").to_string_lossy().into_owned();
        let text = |file: &str| {
            std::fs::read_to_string(folder.join(file))
                .unwrap_or_else(|error| panic!("{name}/{file}: {error}"))
        };
        Self {
            source: text("workflow.yaml"),
            input: serde_json::from_str(&text("input.json"))
                .unwrap_or_else(|error| panic!("{name}/input.json: {error}")),
            schedule: serde_saphyr::from_str(&text("schedule.yaml"))
                .unwrap_or_else(|error| panic!("{name}/schedule.yaml: {error}")),
            name,
            folder,
        }
    }

    /// What stands in its `expected.json`.
    pub(crate) fn expected(&self) -> Expected {
        let path = self.folder.join("expected.json");
        let text = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}
