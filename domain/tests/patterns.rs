//! The workflow patterns (docs/patterns.md): each example, decided by the engine alone under its
//! schedule, gives the trace and the output in its `expected.json`.
//!
//! `UPDATE_SNAPSHOTS=1` rewrites these files, but for their `order`, instead of comparing.

#[path = "../../tests/patterns/schedule.rs"]
mod schedule;
#[path = "../../tests/patterns/trace.rs"]
mod trace;

use chrono::{DateTime, Utc};
use domain::definition::plan::{NodeWork, TaskBody};
use domain::definition::{Plan, Resolved, parse};
use domain::expression::{Binding, Roots};
use domain::ids::{DefinitionId, ProjectId, RunId};
use domain::run::command::{AttemptError, GateAnswer, Report};
use domain::run::event::{DefinitionRef, RunStarted, TokenId};
use domain::run::state::Phase;
use domain::run::{Command, Run, Usage, decide};
use serde_json::Value;
use uuid::Uuid;

use schedule::{Expected, Pattern, Step, patterns};
use trace::Trace;

/// A pattern's run, decided step by step.
struct Driver<'p> {
    name: &'p str,
    plan: Plan,
    trace: Trace,
    now: DateTime<Utc>,
}

impl<'p> Driver<'p> {
    fn new(pattern: &'p Pattern) -> Self {
        let name = pattern.name.as_str();
        let definition = parse::read(pattern.source.as_bytes())
            .unwrap_or_else(|problems| panic!("{name}: {problems:#?}"));
        assert_eq!(definition.name.to_string(), name);
        let plan = Plan::compile(&definition, &Resolved::default()).expect("it compiles");
        let now = DateTime::from_timestamp(1_700_000_000, 0).expect("in range");
        Self { name, plan, trace: Trace::default(), now }
    }

    /// Gives a command and all that follows from it; answers the lines that it brought.
    fn give(&mut self, command: &Command) -> Vec<String> {
        let before = self.trace.lines.len();
        let mut command = Some(command.clone());
        while let Some(next) = command.take() {
            let decision = decide(&self.trace.run, &self.plan, &next, self.now)
                .unwrap_or_else(|refusal| panic!("{}: {next:?} is refused: {refusal}", self.name));
            for event in &decision.events {
                self.trace.take(event, self.now);
            }
            command = decision.advance.then_some(Command::Advance);
        }
        self.trace.lines[before..].to_vec()
    }

    fn start(&mut self, input: &Value) -> Vec<String> {
        let started = RunStarted {
            run_id: RunId::new(Uuid::from_u128(42)),
            project_id: ProjectId::derived("", "p"),
            workflow_id: None,
            definition: DefinitionRef {
                id: DefinitionId::derived("", "d"),
                name: self.name.to_owned(),
                version: 1,
                hash: "0".repeat(64),
            },
            pins: Vec::new(),
            start: String::new(),
            input: input.clone(),
            labels: Default::default(),
            started_at: self.now,
            deadline: None,
            started_by: None,
            parent: None,
            trigger: None,
            admission: None,
            forked_from: None,
            rerun_of: None,
        };
        self.give(&Command::Start(Box::new(started)))
    }

    fn step(&mut self, step: &Step) -> Vec<String> {
        let command = if let Some(node) = &step.succeed {
            let (token, attempt) = self.at_work(node, step.index);
            let result = step.result.clone().unwrap_or_else(|| self.result(token, node));
            report(token, attempt, Ok(result))
        } else if let Some(node) = &step.fail {
            let (token, attempt) = self.at_work(node, step.index);
            report(token, attempt, Err(failure(step)))
        } else if let Some(signal) = &step.signal {
            let is_awaited = self.find(|phase| {
                matches!(phase, Phase::Waiting { signal: Some(name), .. } if **name == **signal)
            });
            assert_eq!(is_awaited.is_none(), step.early, "{}: {signal}", self.name);
            let name = signal.parse().expect("a name");
            let payload = step.payload.clone();
            Command::Signal { name, payload, transient: step.transient }
        } else if let Some(node) = &step.answer {
            let gate = self.find_at(node, |phase| matches!(phase, Phase::Gated { .. }));
            Command::Answer(Box::new(GateAnswer {
                token: gate.unwrap_or_else(|| panic!("{}: no gate at {node}", self.name)),
                actor: "somebody".to_owned(),
                roles: Vec::new(),
                decision: step.decision,
                value: step.value.clone(),
                comment: None,
            }))
        } else if let Some(span) = step.clock {
            self.now += span.as_duration();
            Command::Wake
        } else {
            let reason = step.cancel.clone();
            assert!(reason.is_some(), "{}: a step does nothing: {step:?}", self.name);
            Command::Cancel { reason, compensate: true }
        };
        self.give(&command)
    }

    fn find(&self, is_it: impl Fn(&Phase) -> bool) -> Option<TokenId> {
        let live = self.trace.run.live()?;
        live.tokens.iter().find(|(_, token)| is_it(&token.phase)).map(|(id, _)| *id)
    }

    fn find_at(&self, node: &str, is_it: impl Fn(&Phase) -> bool) -> Option<TokenId> {
        let live = self.trace.run.live()?;
        let mut tokens = live.tokens.iter();
        let found = tokens.find(|(_, token)| *token.node == *node && is_it(&token.phase));
        found.map(|(id, _)| *id)
    }

    fn at_work(&self, node: &str, index: Option<u64>) -> (TokenId, u32) {
        let name = self.name;
        let owed = self.trace.run.owed(&self.plan).attempts;
        let is_it = |token: TokenId| {
            let live = self.trace.run.live();
            live.and_then(|live| live.tokens.get(&token)).is_some_and(|token| {
                let is_branch = index.is_none() || token.branch.map(|one| one.index) == index;
                *token.node == *node && is_branch
            })
        };
        let found = owed.iter().find(|(token, _)| is_it(*token));
        *found.unwrap_or_else(|| panic!("{name}: nobody works at {node} {index:?}: {owed:?}"))
    }

    /// What the node's action says that it answers.
    fn result(&self, token: TokenId, node: &str) -> Value {
        let Some(NodeWork::Task(TaskBody::Action(action))) =
            self.plan.node(node).map(|node| &node.work)
        else {
            panic!("{}: {node} has no action: give its `result`", self.name)
        };
        let value = action.with.get("result").or_else(|| action.with.get("value"));
        let input = self.trace.run.task_input(&self.plan, token).expect("its input maps");
        let binding = Binding::compile(value.unwrap_or(&Value::Null)).expect("it compiles");
        binding.eval(&Roots::new().with("input", &input)).expect("it can be evaluated")
    }

    /// What came of the run.
    fn outcome(&self, trace: Vec<Vec<String>>) -> Expected {
        let Run::Closed(closed) = &self.trace.run else {
            panic!("{}: the schedule leaves the run under way: {:#?}", self.name, self.trace.run)
        };
        Expected {
            status: closed.status.as_str().to_owned(),
            output: closed.output.as_deref().cloned().unwrap_or_default(),
            error: closed.error.as_ref().map(|error| error.code.clone()),
            trace,
            order: Vec::new(),
        }
    }
}

fn failure(step: &Step) -> AttemptError {
    AttemptError {
        code: "broken".to_owned(),
        message: "it broke".to_owned(),
        kind: step.kind,
        detail: Value::Null,
        retry_after: None,
    }
}

fn report(token: TokenId, attempt: u32, result: Result<Value, AttemptError>) -> Command {
    let usage = Usage::default();
    Command::Report(Box::new(Report {
        token,
        attempt,
        result,
        usage,
        duration_ms: 0,
        adopted: None,
    }))
}

#[test]
fn each_pattern_does_what_it_says_under_its_schedule() {
    for pattern in patterns() {
        let mut driver = Driver::new(&pattern);
        let mut trace = vec![driver.start(&pattern.input)];
        trace.extend(pattern.schedule.iter().map(|step| driver.step(step)));
        let mut found = driver.outcome(trace);
        let path = pattern.folder.join("expected.json");
        if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
            if path.exists() {
                found.order = pattern.expected().order;
            }
            let pretty = serde_json::to_string_pretty(&found).expect("it is JSON");
            std::fs::write(&path, pretty + "\n").expect("the file can be written");
        }
        let expected = pattern.expected();
        found.order.clone_from(&expected.order);
        assert_eq!(found, expected, "{}; UPDATE_SNAPSHOTS=1 rewrites it", pattern.name);
        expected.check_order(&pattern.name, &driver.trace.lines);
    }
}

/// The table has each of the 43 patterns once, and those with an example link to it.
#[test]
fn the_table_in_the_documentation_is_complete() {
    let table =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/patterns.md"))
            .expect("the table is there");
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split('|').map(str::trim).collect::<Vec<_>>())
        .filter(|cells| cells.get(1).is_some_and(|number| number.parse::<u32>().is_ok()))
        .collect();
    assert_eq!(rows.len(), 43);
    let mut examples = Vec::new();
    for (number, row) in (1..).zip(&rows) {
        assert_eq!(row[1], format!("{number}"));
        let link = row[2].split_once("(../examples/").and_then(|(_, rest)| rest.strip_suffix(')'));
        assert_eq!(link.is_some(), matches!(row[3], "direct" | "combination"), "{row:?}");
        let Some(link) = link else { continue };
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/").to_owned() + link;
        assert!(std::path::Path::new(&file).is_file(), "{file}");
        // An example of another kind shows it where the engine alone can't.
        if let Some(rest) = link.strip_prefix("patterns/") {
            let folder = rest.strip_suffix("/workflow.yaml").expect("it is the definition");
            assert!(folder.starts_with(&format!("{number:02}-")), "{row:?}");
            examples.push(folder.to_owned());
        }
    }
    let folders: Vec<_> = patterns().into_iter().map(|pattern| pattern.name).collect();
    assert_eq!(examples, folders);
    let direct = rows.iter().filter(|row| row[3] == "direct").count();
    assert!(table.contains(&format!("{direct} directly")), "{direct} are supported directly");
}
