//! What a token's expressions see.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::event::RunError;
use super::state::{Branch, Header, Instance, Live, Token};
use super::vars::Vars;
use crate::definition::Plan;
use crate::expression::Scope;

/// The scope of a token: `input`, `state` through all levels, `item`, `index`, the outer items by
/// their names, `run`, and `result` or `error` of the node just run.
pub(crate) struct TokenScope<'a> {
    pub live: &'a Live,
    pub plan: &'a Plan,
    pub token: &'a Token,
    /// `state` on the run's own level, for a token that stands there.
    pub root: &'a Vars,
    pub result: Option<&'a Value>,
    pub error: Option<&'a RunError>,
    /// The signal that a wait's condition is about.
    pub signal: Option<&'a Value>,
}

impl<'a> TokenScope<'a> {
    pub(crate) fn new(live: &'a Live, plan: &'a Plan, token: &'a Token) -> Self {
        let error = token.error.as_deref();
        Self { live, plan, token, root: &live.root, result: None, error, signal: None }
    }

    /// The scope of what follows a node's end: with its result, or with its error.
    pub(crate) fn of_end(live: &'a Live, plan: &'a Plan, token: &'a Token) -> Self {
        let result = token.phase.result().map(|result| &**result);
        Self { result, error: token.phase.error(), ..Self::new(live, plan, token) }
    }

    fn state(&self) -> Map<String, Value> {
        let mut levels = vec![&self.token.vars];
        let mut instance = self.instance(self.token.branch);
        if instance.is_none() {
            levels = vec![self.root];
        }
        while let Some(one) = instance {
            levels.push(&one.parent.vars);
            instance = self.instance(one.parent.branch);
        }
        let mut state = Map::new();
        for level in levels.into_iter().rev() {
            for (name, value) in level.iter() {
                state.insert(name.clone(), (**value).clone());
            }
        }
        state
    }

    fn state_member(&self, name: &str) -> Option<&Value> {
        let Some(branch) = self.token.branch else {
            return self.root.get(name).map(|value| &**value);
        };
        if let Some(value) = self.token.vars.get(name) {
            return Some(value);
        }
        let mut instance = self.instance(Some(branch));
        while let Some(one) = instance {
            if let Some(value) = one.parent.vars.get(name) {
                return Some(value);
            }
            instance = self.instance(one.parent.branch);
        }
        None
    }

    fn instance(&self, branch: Option<Branch>) -> Option<&Instance> {
        self.live.instances.get(&branch?.instance)
    }

    /// The item of this branch or of an outer one, by the name that its `foreach` gave it.
    fn named_item(&self, name: &str) -> Option<&Value> {
        let mut branch = self.token.branch;
        let mut item = self.token.item.as_deref();
        while let Some(at) = branch {
            let instance = self.live.instances.get(&at.instance)?;
            let transition = instance.branches_of(at.index)?.transition;
            let given = self.plan.transition(transition)?.item_name.as_deref();
            if given == Some(name) {
                return item;
            }
            branch = instance.parent.branch;
            item = instance.parent.item.as_deref();
        }
        None
    }
}

impl Scope for TokenScope<'_> {
    fn root(&self, name: &str) -> Option<Cow<'_, Value>> {
        match name {
            "input" => Some(Cow::Borrowed(&*self.live.header.input)),
            "state" => Some(Cow::Owned(Value::Object(self.state()))),
            "item" => self.token.item.as_deref().map(Cow::Borrowed),
            "index" => self.token.branch.map(|branch| Cow::Owned(branch.index.into())),
            "result" => self.result.map(Cow::Borrowed),
            "error" => self.error.map(|error| Cow::Owned(json!(error))),
            "run" => Some(Cow::Owned(self.live.header.as_value())),
            "signal" if self.signal.is_some() => self.signal.map(Cow::Borrowed),
            other => self.named_item(other).map(Cow::Borrowed),
        }
    }

    fn declares(&self, name: &str) -> bool {
        match name {
            // A node that failures and successes lead to asks `has(error.code)`.
            "input" | "state" | "run" | "error" => true,
            "item" => self.token.item.is_some(),
            "index" => self.token.branch.is_some(),
            "result" => self.result.is_some(),
            "signal" if self.signal.is_some() => true,
            other => self.named_item(other).is_some(),
        }
    }

    fn member(&self, root: &str, key: &str) -> Option<Cow<'_, Value>> {
        match root {
            "input" => self.live.header.input.get(key).map(Cow::Borrowed),
            "state" => self.state_member(key).map(Cow::Borrowed),
            "item" => self.token.item.as_deref()?.get(key).map(Cow::Borrowed),
            "result" => self.result?.get(key).map(Cow::Borrowed),
            "signal" if self.signal.is_some() => self.signal?.get(key).map(Cow::Borrowed),
            other => match self.root(other)? {
                Cow::Borrowed(value) => value.get(key).map(Cow::Borrowed),
                Cow::Owned(mut value) => value.as_object_mut()?.remove(key).map(Cow::Owned),
            },
        }
    }
}

/// The scope of the run's own output: `input`, `state` and `run`.
pub(crate) struct RunScope<'a>(pub &'a Live);

impl Scope for RunScope<'_> {
    fn root(&self, name: &str) -> Option<Cow<'_, Value>> {
        match name {
            "input" => Some(Cow::Borrowed(&*self.0.header.input)),
            "state" => Some(Cow::Owned(root_state(self.0))),
            "run" => Some(Cow::Owned(self.0.header.as_value())),
            _ => None,
        }
    }

    fn declares(&self, name: &str) -> bool {
        matches!(name, "input" | "state" | "run")
    }

    fn member(&self, root: &str, key: &str) -> Option<Cow<'_, Value>> {
        match root {
            "input" => self.0.header.input.get(key).map(Cow::Borrowed),
            "state" => self.0.root.get(key).map(|value| Cow::Borrowed(&**value)),
            "run" => self.0.header.as_value().as_object_mut()?.remove(key).map(Cow::Owned),
            _ => None,
        }
    }
}

/// The run's own level of `state` as one object.
pub(crate) fn root_state(live: &Live) -> Value {
    let members = live.root.iter().map(|(name, value)| (name.clone(), (**value).clone()));
    Value::Object(members.collect())
}

impl Header {
    /// `run` as expressions see it, here and on workers.
    pub fn as_value(&self) -> Value {
        json!({"id": self.run_id, "attempt": 1, "started_at": self.started_at})
    }
}
