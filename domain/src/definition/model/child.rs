//! Child runs: the `workflow` of a node.

use serde::{Deserialize, Serialize};

use super::Mapping;

/// A child run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChildSpec {
    /// `name` (the latest version when the child starts) or `name@version`, or `${…}` that gives
    /// one.
    pub definition: String,
    /// The child's input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Mapping>,
    /// Labels of the child, over those of its parent: `null` takes one away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Mapping>,
    #[serde(default)]
    pub on_failure: OnChildFailure,
}

/// What it means to the node that its child doesn't complete.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnChildFailure {
    /// The node fails with the code `child_failed`.
    #[default]
    Propagate,
    /// The node succeeds; its result is `{status, output, error}`, however the child ended.
    Catch,
}

/// Whether a text has the form of a reference: `name` or `name@version`.
pub fn is_reference(text: &str) -> bool {
    let (name, version) = match text.split_once('@') {
        None => (text, None),
        Some((name, version)) => (name, Some(version)),
    };
    let is_version = |text: &str| {
        (1..=18).contains(&text.len())
            && !text.starts_with('0')
            && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    name.parse::<crate::ids::Name>().is_ok() && version.is_none_or(is_version)
}
