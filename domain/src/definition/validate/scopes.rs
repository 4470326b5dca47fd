//! Which names an expression may use at its place.
//!
//! | place | names |
//! |---|---|
//! | node `input`, `compute` | `input state item index run`, every `as` name; `error` too where a
//!   transition `on: failure` or `on: timeout` leads there |
//! | a wait's `for`, `until`, a gate's texts and lists, what an emit holds | as node `input` |
//! | a wait's `when` | the same and `signal` |
//! | node `output`, `undo.input` | as node `input`, and `result` |
//! | `when`, `spawn`, `foreach` | as `input`, and `result` after success, `error` otherwise |
//! | `join.merge.from` | the same and `result` |
//! | an action's `with` | `input run` |
//! | a step's `if`, `input`, `with` | `input steps run` |
//! | the run's `output` | `input state run` |
//! | `concurrency.key`, `rate_limit.key`, `priority` | `input` |

use std::collections::BTreeSet;

/// The names that mean something somewhere.
pub(super) const ROOTS: [&str; 9] =
    ["input", "state", "item", "index", "result", "error", "run", "steps", "signal"];

/// The names in scope at a place.
#[derive(Debug, Clone)]
pub(super) struct Names<'n>(Vec<&'n str>);

impl<'n> Names<'n> {
    pub(super) fn of_node(item_names: &BTreeSet<&'n str>) -> Self {
        let mut names = vec!["input", "state", "item", "index", "run"];
        names.extend(item_names);
        Self(names)
    }

    pub(super) fn of_run() -> Self {
        Self(vec!["input", "state", "run"])
    }

    pub(super) fn of_start() -> Self {
        Self(vec!["input"])
    }

    pub(super) fn of_action() -> Self {
        Self(vec!["input", "run"])
    }

    pub(super) fn of_step() -> Self {
        Self(vec!["input", "steps", "run"])
    }

    /// The names and one more.
    pub(super) fn and(&self, name: &'n str) -> Self {
        let mut names = self.0.clone();
        names.push(name);
        Self(names)
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.0.contains(&name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &'n str> + '_ {
        self.0.iter().copied()
    }
}

/// Whether a text can stand as a variable in an expression.
pub(super) fn is_identifier(name: &str) -> bool {
    const RESERVED: [&str; 4] = ["true", "false", "null", "in"];
    !RESERVED.contains(&name)
        && name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
