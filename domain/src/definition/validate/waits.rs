//! Checking nodes that need no worker: `workflow`, `wait`, `gate` and `emit`.

use chrono::DateTime;
use serde_json::Value;

use super::super::problem::escaped;
use super::super::{
    ChildSpec, GateSpec, GateTimeout, Mapping, Node, OnChildFailure, ProblemCode, WaitSpec,
    is_reference,
};
use super::Checker;
use super::scopes::Names;
use crate::labels;
use crate::limits;
use crate::span::Span;

impl Checker<'_> {
    pub(super) fn without_worker(&mut self, place: &str, node: &Node, names: &Names<'_>) {
        let kind = if let Some(wait) = &node.wait {
            self.wait(&format!("{place}/wait"), wait, names);
            "wait"
        } else if let Some(gate) = &node.gate {
            self.gate(&format!("{place}/gate"), gate, names);
            "gate"
        } else if let Some(emit) = &node.emit {
            self.emit(&format!("{place}/emit"), emit, names);
            "emit"
        } else if let Some(child) = &node.workflow {
            self.child(&format!("{place}/workflow"), child, names);
            "workflow"
        } else {
            return;
        };
        let foreign = [
            ("input", node.input.is_some()),
            ("retry", node.retry.is_some()),
            ("timeout", node.timeout.is_some() && kind != "workflow"),
            ("repeatable", node.repeatable.is_some()),
        ];
        for (key, _) in foreign.into_iter().filter(|(_, is_there)| *is_there) {
            let remedy = match (key, kind) {
                ("timeout", "wait" | "gate") => format!("move it into `{kind}`"),
                ("input", "workflow") => "move it into `workflow`".to_owned(),
                ("input", _) => format!("write expressions into `{kind}` itself"),
                _ => "drop it".to_owned(),
            };
            let message = format!("`{key}` is for actions, a `{kind}` needs no worker: {remedy}");
            self.problem(ProblemCode::InvalidValue, &format!("{place}/{key}"), message);
        }
    }

    fn wait(&mut self, place: &str, wait: &WaitSpec, names: &Names<'_>) {
        let forms = [
            ("for", wait.span.is_some()),
            ("until", wait.until.is_some()),
            ("signal", wait.signal.is_some()),
        ];
        let given: Vec<_> = forms.into_iter().filter(|(_, is_there)| *is_there).collect();
        match given.as_slice() {
            [] => {
                let message = "give what it waits for: one of `for`, `until`, `signal`";
                self.problem(ProblemCode::MissingKey, place, message);
            }
            [_] => {}
            [_, (second, _), ..] => {
                let message = "a wait has exactly one of `for`, `until`, `signal`: use several \
                               nodes";
                self.problem(ProblemCode::InvalidValue, &format!("{place}/{second}"), message);
            }
        }
        if let Some(span) = &wait.span {
            let is_good = |text: &str| text.parse::<Span>().map(drop).map_err(|e| e.to_string());
            self.time(&format!("{place}/for"), span, names, is_good);
        }
        if let Some(until) = &wait.until {
            let is_good = |text: &str| {
                let wrong = |_| format!("{text:?} is no time: write one as 2026-01-31T12:00:00Z");
                DateTime::parse_from_rfc3339(text).map(drop).map_err(wrong)
            };
            self.time(&format!("{place}/until"), until, names, is_good);
        }
        let of_signals = [("when", wait.when.is_some()), ("timeout", wait.timeout.is_some())];
        for (key, _) in of_signals.into_iter().filter(|(_, is_there)| *is_there) {
            if wait.signal.is_none() {
                let message = format!("`{key}` is for a wait for a `signal`: drop it");
                self.problem(ProblemCode::InvalidValue, &format!("{place}/{key}"), message);
            }
        }
        if let Some(when) = &wait.when {
            self.condition(&format!("{place}/when"), when, &names.and("signal"));
        }
    }

    fn child(&mut self, place: &str, child: &ChildSpec, names: &Names<'_>) {
        let (at, text) = (format!("{place}/definition"), &child.definition);
        if text.contains("${") {
            self.value(&at, &Value::String(text.clone()), names);
        } else if !is_reference(text) {
            let shown: String = text.chars().take(80).collect();
            let message = format!(
                "{shown:?} is not a reference to a definition: write name or name@version (from 1)"
            );
            self.problem(ProblemCode::InvalidValue, &at, message);
        }
        if let Some(input) = &child.input {
            self.mapping(&format!("{place}/input"), input, names);
        }
        if let Some(labels) = &child.labels {
            self.labels(&format!("{place}/labels"), labels, names);
        }
    }

    fn labels(&mut self, place: &str, given: &Mapping, names: &Names<'_>) {
        self.mapping(place, given, names);
        if given.len() > limits::LABELS {
            let message = format!("a run may have at most {} labels", limits::LABELS);
            self.problem(ProblemCode::LimitExceeded, place, message);
        }
        for (key, value) in given {
            let place = format!("{place}/{}", escaped(key));
            if !labels::is_key(key) {
                let message = format!(
                    "a label's key takes 1 to {} letters and digits of ascii, and . _ / -",
                    labels::KEY_BYTES
                );
                self.problem(ProblemCode::InvalidName, &place, message);
            }
            let fits = |text: &str| text.contains("${") || labels::is_value(text);
            if !(value.is_null() || value.as_str().is_some_and(fits)) {
                let message = format!(
                    "a label is a text of at most {} bytes without control characters, or null to \
                     take it away",
                    labels::VALUE_BYTES
                );
                self.problem(ProblemCode::InvalidValue, &place, message);
            }
        }
    }

    /// A text that is a time of some form, or an expression that gives one.
    fn time(
        &mut self,
        place: &str,
        text: &str,
        names: &Names<'_>,
        is_good: impl Fn(&str) -> Result<(), String>,
    ) {
        if text.contains("${") {
            self.value(place, &Value::String(text.to_owned()), names);
        } else if let Err(message) = is_good(text) {
            self.problem(ProblemCode::InvalidValue, place, message);
        }
    }

    fn gate(&mut self, place: &str, gate: &GateSpec, names: &Names<'_>) {
        self.value(&format!("{place}/title"), &Value::String(gate.title.clone()), names);
        if gate.title.trim().is_empty() {
            let message = "say what people are asked";
            self.problem(ProblemCode::InvalidValue, &format!("{place}/title"), message);
        }
        self.schema(&format!("{place}/form"), gate.form.as_ref());
        for (key, list) in [("assignees", &gate.assignees), ("roles", &gate.roles)] {
            if let Some(list) = list {
                self.people(&format!("{place}/{key}"), list, names);
            }
        }
        let approvals = format!("{place}/approvals");
        if !(1..=limits::APPROVALS).contains(&gate.approvals) {
            let message = format!("approvals must be 1 to {}", limits::APPROVALS);
            self.problem(ProblemCode::InvalidValue, &approvals, message);
        }
        let listed = gate.assignees.as_ref().and_then(Value::as_array);
        let few = |listed: &&Vec<Value>| (listed.len() as u64) < u64::from(gate.approvals);
        if let Some(listed) = listed.filter(few).filter(|_| gate.roles.is_none()) {
            let message = format!(
                "{} approvals can't come from {} assignees: name more, or ask for fewer",
                gate.approvals,
                listed.len()
            );
            self.problem(ProblemCode::InvalidValue, &approvals, message);
        }
        if gate.timeout.is_none() && gate.on_timeout != GateTimeout::Fail {
            let message = "`on_timeout` needs a `timeout`";
            self.problem(ProblemCode::InvalidValue, &format!("{place}/on_timeout"), message);
        }
    }

    /// A list of names, or an expression that gives one.
    fn people(&mut self, place: &str, list: &Value, names: &Names<'_>) {
        match list {
            Value::String(text) if !text.contains("${") => {
                let message = "give a list, or an expression as ${…} that gives one";
                self.problem(ProblemCode::InvalidValue, place, message);
            }
            Value::Array(listed) if listed.len() > limits::ASSIGNEES => {
                let message = format!("at most {} may be named", limits::ASSIGNEES);
                self.problem(ProblemCode::LimitExceeded, place, message);
            }
            list => self.value(place, list, names),
        }
    }
}

/// Why a transition `on: timeout` out of a node could never be taken.
pub(super) fn no_timeout(node: &Node) -> Option<&'static str> {
    if node.compute.is_some() {
        return Some("a `compute` node can't time out");
    }
    if node.emit.is_some() {
        return Some("an `emit` node can't time out");
    }
    if node.wait.as_ref().is_some_and(|wait| wait.timeout.is_none()) {
        return Some("this `wait` can't time out: give it a `signal` with a `timeout`");
    }
    if let Some(child) = &node.workflow {
        let catches = child.on_failure == OnChildFailure::Catch;
        let message = "this node catches how its child ends, also that it takes too long: look at \
                       `result.status` instead";
        return catches.then_some(message);
    }
    let gate = node.gate.as_ref()?;
    match (gate.timeout, gate.on_timeout) {
        (Some(_), GateTimeout::Fail) => None,
        (Some(_), GateTimeout::Reject) => Some("this gate is rejected when its time is up"),
        (Some(_), GateTimeout::Proceed) => Some("this gate goes on when its time is up"),
        (None, _) => Some("this gate can't time out: give it a `timeout`"),
    }
}
