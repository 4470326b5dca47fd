//! What an expression can see: named root values.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value;

/// The values in scope. Roots are `input`, `state`, `item`, `index`, `result`, `error`, `run`,
/// `steps`, and the names that `foreach … as` gave.
pub trait Scope {
    /// A root's whole value, or `None` where the name isn't in scope.
    fn root(&self, name: &str) -> Option<Cow<'_, Value>>;

    /// Whether a root is in scope, whatever its value.
    fn declares(&self, name: &str) -> bool {
        self.root(name).is_some()
    }

    /// One member of a root that is an object, so that a large root (`state`) need not be
    /// put together for one of its fields. `None` where root or member is missing.
    fn member(&self, root: &str, key: &str) -> Option<Cow<'_, Value>> {
        match self.root(root)? {
            Cow::Borrowed(value) => value.get(key).map(Cow::Borrowed),
            Cow::Owned(mut value) => value.as_object_mut()?.remove(key).map(Cow::Owned),
        }
    }
}

/// A scope from ready values.
#[derive(Debug, Clone, Default)]
pub struct Roots<'a>(BTreeMap<&'a str, Cow<'a, Value>>);

impl<'a> Roots<'a> {
    /// An empty scope.
    pub fn new() -> Self {
        Self::default()
    }

    /// The scope with one more root.
    #[must_use]
    pub fn with(mut self, name: &'a str, value: &'a Value) -> Self {
        self.0.insert(name, Cow::Borrowed(value));
        self
    }

    /// The scope with one more root that it owns.
    #[must_use]
    pub fn with_owned(mut self, name: &'a str, value: Value) -> Self {
        self.0.insert(name, Cow::Owned(value));
        self
    }
}

impl Scope for Roots<'_> {
    fn declares(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    fn root(&self, name: &str) -> Option<Cow<'_, Value>> {
        self.0.get(name).map(|value| Cow::Borrowed(value.as_ref()))
    }
}
