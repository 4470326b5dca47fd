//! A run in a test: a definition, a clock that is set by hand, and every event that it made.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::definition::{Definition, Plan, Resolved};
use crate::ids::{DefinitionId, ProjectId, RunId};
use crate::run::command::{AttemptError, Report};
use crate::run::event::{Admission, DefinitionRef, FailureKind, ParentRun, RunStarted, Usage};
use crate::run::state::Closed;
use crate::run::{Command, Decision, Event, Refusal, Run, RunStatus};

/// A run under test.
pub(super) struct Fixture {
    pub plan: Arc<Plan>,
    pub run: Run,
    pub events: Vec<(Event, DateTime<Utc>)>,
    pub now: DateTime<Utc>,
    /// Attempts whose outcome is awaited, in the order of dispatch.
    pub owed: Vec<(u64, u32)>,
    /// Children that nobody waits for any more.
    pub given_up: Vec<RunId>,
    /// The run that it is started by.
    pub parent: Option<ParentRun>,
    pub labels: std::collections::BTreeMap<String, String>,
    /// What its admission goes by.
    pub admission: Option<Admission>,
}

impl Fixture {
    pub(super) fn new(definition: Value) -> Self {
        let definition: Definition = serde_json::from_value(definition).expect("a definition");
        let problems = crate::definition::validate::check(&definition);
        assert!(problems.is_empty(), "{problems:#?}");
        let plan = Plan::compile(&definition, &Resolved::default()).expect("it compiles");
        Self {
            plan: Arc::new(plan),
            run: Run::default(),
            events: Vec::new(),
            now: DateTime::from_timestamp(1_700_000_000, 0).expect("in range"),
            owed: Vec::new(),
            given_up: Vec::new(),
            parent: None,
            labels: Default::default(),
            admission: None,
        }
    }

    pub(super) fn started(definition: Value, input: Value) -> Self {
        let mut fixture = Self::new(definition);
        fixture.start(input).expect("it starts");
        fixture
    }

    pub(super) fn start(&mut self, input: Value) -> Result<Decision, Refusal> {
        let started = self.started_event(input);
        self.when(&Command::Start(Box::new(started)))
    }

    pub(super) fn started_event(&self, input: Value) -> RunStarted {
        RunStarted {
            run_id: RunId::new(Uuid::from_u128(42)),
            project_id: ProjectId::derived("", "p"),
            workflow_id: None,
            definition: DefinitionRef {
                id: DefinitionId::derived("", "d"),
                name: "d".to_owned(),
                version: 1,
                hash: "0".repeat(64),
            },
            pins: Vec::new(),
            start: String::new(),
            input,
            labels: self.labels.clone(),
            started_at: self.now,
            deadline: None,
            started_by: Some("ann".to_owned()),
            parent: self.parent,
            trigger: None,
            admission: self.admission.clone(),
            forked_from: None,
            rerun_of: None,
        }
    }

    /// Decides, follows every put-off advance, and keeps what is owed.
    pub(super) fn when(&mut self, command: &Command) -> Result<Decision, Refusal> {
        let mut whole = self.run.execute(&self.plan, command, self.now)?;
        let mut advance = std::mem::take(&mut whole.advance);
        self.keep(&whole);
        while advance {
            let next = self
                .run
                .execute(&self.plan, &Command::Advance, self.now)
                .expect("an advance is never refused while it is owed");
            self.keep(&next);
            advance = next.advance;
            whole.events.extend(next.events);
            whole.dispatch.extend(next.dispatch);
            whole.children.extend(next.children);
            whole.given_up.extend(next.given_up);
        }
        Ok(whole)
    }

    fn keep(&mut self, decision: &Decision) {
        let now = self.now;
        self.given_up.extend(&decision.given_up);
        self.events.extend(decision.events.iter().map(|event| (event.clone(), now)));
        for attempt in &decision.dispatch {
            // After a pause all that is owed is named, also what is on a worker.
            if !self.owed.contains(attempt) {
                self.owed.push(*attempt);
            }
        }
        let run = &self.run;
        self.owed.retain(|(token, attempt)| {
            run.working_attempt(*token).is_some_and(|(_, current)| current == *attempt)
        });
    }

    pub(super) fn advance_clock(&mut self, ms: i64) -> Decision {
        self.now += TimeDelta::milliseconds(ms);
        self.when(&Command::Wake).expect("waking a live run is not refused")
    }

    /// The token that owes work at a node; the one of the lowest number.
    pub(super) fn at(&self, node: &str) -> (u64, u32) {
        *self
            .owed
            .iter()
            .filter(|(token, _)| self.node_of(*token) == node)
            .min()
            .unwrap_or_else(|| panic!("no token works at {node}; owed: {:?}", self.owed))
    }

    pub(super) fn node_of(&self, token: u64) -> String {
        let (token, _) = self.run.working_attempt(token).expect("it works");
        token.node.to_string()
    }

    /// The mapped input of the token at a node.
    pub(super) fn input_at(&self, node: &str) -> Value {
        self.run.task_input(&self.plan, self.at(node).0).expect("its input maps")
    }

    pub(super) fn succeed(&mut self, node: &str, result: Value) -> Decision {
        let (token, attempt) = self.at(node);
        self.report(token, attempt, Ok(result)).expect("it is owed")
    }

    pub(super) fn fail(&mut self, node: &str, kind: FailureKind) -> Decision {
        let (token, attempt) = self.at(node);
        self.report(token, attempt, Err(error(kind))).expect("it is owed")
    }

    pub(super) fn report(
        &mut self,
        token: u64,
        attempt: u32,
        result: Result<Value, AttemptError>,
    ) -> Result<Decision, Refusal> {
        let usage = Usage { input_tokens: 1, output_tokens: 2, cost_micros: 3 };
        self.when(&Command::Report(Box::new(Report {
            token,
            attempt,
            result,
            usage,
            duration_ms: 1,
            adopted: None,
        })))
    }

    pub(super) fn closed(&self) -> &Closed {
        match &self.run {
            Run::Closed(closed) => closed,
            other => {
                panic!("the run goes on: {}", serde_json::to_string_pretty(other).expect("json"))
            }
        }
    }

    pub(super) fn output(&self) -> Value {
        let closed = self.closed();
        assert_eq!(closed.status, RunStatus::Completed, "{:?}", closed.error);
        closed.output.as_deref().cloned().expect("a completed run has an output")
    }

    pub(super) fn failure(&self) -> &str {
        &self.closed().error.as_deref().expect("it failed").code
    }

    /// The types of all events so far.
    pub(super) fn types(&self) -> Vec<&'static str> {
        self.events.iter().map(|(event, _)| event.event_type()).collect()
    }
}

pub(super) fn error(kind: FailureKind) -> AttemptError {
    AttemptError {
        code: "broken".to_owned(),
        message: "it broke".to_owned(),
        kind,
        detail: Value::Null,
        retry_after: None,
    }
}

/// An action node without a meaning of its own: the test reports what it likes.
pub(super) fn task() -> Value {
    json!({"action": {"kind": "mock", "with": {"result": null}}})
}

/// The same with an output into `state`.
pub(super) fn task_into(path: &str) -> Value {
    let mut node = task();
    node["output"] = json!({path: "${result}"});
    node
}
