//! A run that the engine itself makes, of a definition that stands in the journal.

use domain::definition::{Definition, Plan, Resolved};
use domain::resource::{Event as ResourceEvent, Spec};
use domain::run::command::{AttemptError, Report};
use domain::run::event::Usage;
use domain::run::{Command, FailureKind, Run};

use super::*;

/// A run and where it is; each command is a second later.
pub(super) struct Driven<'w> {
    world: &'w World,
    pub(super) id: RunId,
    plan: Plan,
    pub(super) run: Run,
    pub(super) sequence: u64,
}

/// A definition that goes three ways by a score, and joins those who judge.
pub(super) fn judged() -> Value {
    let mock = json!({"action": {"kind": "mock", "with": {"result": 1}}});
    json!({"name": "judged", "start": "draft",
        "nodes": {
            "draft": {"action": {"kind": "mock", "with": {"result": 1}},
                "output": {"state.score": "${result.score}"}},
            "judge": mock, "fix": mock, "publish": mock},
        "transitions": [
            {"from": "draft", "to": "publish", "when": "result.score > 8"},
            {"from": "draft", "to": "judge", "foreach": "${input.judges}", "group": "judges",
                "when": "state.score > 3", "priority": 1},
            {"from": "draft", "to": "fix", "priority": 2},
            {"from": "draft", "to": "fix", "on": "failure"},
            {"from": "judge", "to": "publish",
                "join": {"group": "judges", "wait": 2, "failed": "ignore"}}]})
}

impl<'w> Driven<'w> {
    /// Publishes the definition where it isn't yet, and starts a run of it.
    pub(super) async fn start(
        world: &'w World,
        number: u128,
        definition: Value,
        input: Value,
    ) -> Self {
        let definition: Definition = serde_json::from_value(definition).expect("a definition");
        let plan = Plan::compile(&definition, &Resolved::default()).expect("it compiles");
        let stream = DefinitionId::new(Uuid::nil()).to_string();
        let stream = ("workflow_definition", stream.as_str());
        let journal = &world.journal;
        if journal.load(stream.0, stream.1, 0, 1).await.expect("it reads").is_empty() {
            let spec = json!({"kind": "workflow_definition", "spec": {"project_id": project_id(0),
                "definition": definition, "hash": "ab"}});
            let spec: Box<Spec> = Box::new(serde_json::from_value(spec).expect("a spec"));
            let created = ResourceEvent::Created { spec, revision: 1 };
            world.append(stream, ours(), 0, &[created]).await;
        }
        let id = run_id(number);
        let Event::RunStarted(started) = started(id, input, &[]) else { unreachable!("a start") };
        let mut start = RunStarted { start: String::new(), started_at: moment(0), ..*started };
        start.definition.name = "judged".to_owned();
        let mut driven = Self { world, id, plan, run: Run::default(), sequence: 0 };
        driven.when(Command::Start(Box::new(start))).await;
        driven
    }

    pub(super) async fn when(&mut self, command: Command) {
        let now = moment(self.sequence);
        let decision = self.run.execute(&self.plan, &command, now).expect("it is taken");
        self.world.run(self.id, self.sequence, &decision.events).await;
        self.sequence += decision.events.len() as u64;
    }

    /// An attempt succeeds.
    pub(super) async fn succeed(&mut self, token: u64, result: Value) {
        self.report(token, Ok(result)).await;
    }

    /// An attempt fails for good.
    pub(super) async fn fail(&mut self, token: u64) {
        let (code, message) = ("broken".to_owned(), "it broke".to_owned());
        let kind = FailureKind::Permanent;
        let detail = Value::Null;
        self.report(token, Err(AttemptError { code, message, kind, detail, retry_after: None }))
            .await;
    }

    async fn report(&mut self, token: u64, result: Result<Value, AttemptError>) {
        let usage = Usage { input_tokens: 7, ..Usage::default() };
        let report = Report { token, attempt: 1, result, usage, duration_ms: 5 };
        self.when(Command::Report(Box::new(report))).await;
    }
}
