//! What clients were told, and whether the journal says the same.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use chassis::journal::{Journal, ReadError, Recalled};
use domain::run::RunStatus;
use serde::Deserialize;
use serde_json::Value;

use super::report::Subject;
use super::{Auditor, End};

/// A line of a client's log: JSON with `op`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(crate) enum Claim {
    /// A run was started.
    Start(Acknowledged),
    /// A run was cancelled.
    Cancel(Acknowledged),
    /// A command was answered 4xx.
    Refused(Refused),
    /// A run was seen to have ended.
    Ended(Ended),
}

/// A command about a run that was answered 2xx.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Acknowledged {
    /// The `Idempotency-Key`.
    key: Option<String>,
    run_id: String,
    /// The receipt's.
    position: u64,
    status: u16,
    /// The labels of a started run, where no other run may have the same.
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// A command that was refused.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Refused {
    /// The `Idempotency-Key`, which no accepted command had.
    key: String,
    status: u16,
}

/// A run's end as it was read.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Ended {
    run_id: String,
    status: RunStatus,
    /// The output of a run that completed, where the client kept it.
    #[serde(default)]
    output: Option<Value>,
}

/// Why a log can't be used.
#[derive(Debug, thiserror::Error)]
#[error("line {line} of the log isn't one of its lines: {source}")]
pub(crate) struct BadLine {
    line: usize,
    source: serde_json::Error,
}

/// A whole log.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    lines: Vec<(usize, Claim)>,
    positions: HashSet<u64>,
    labels: HashSet<BTreeMap<String, String>>,
    ended: HashSet<String>,
}

impl Claims {
    /// Reads a log: one JSON object a line; empty lines are skipped.
    pub(crate) fn parse(text: &str) -> Result<Self, BadLine> {
        let mut claims = Self::default();
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let line_number = index + 1;
            let claim = serde_json::from_str(line)
                .map_err(|source| BadLine { line: line_number, source })?;
            match &claim {
                Claim::Start(said) | Claim::Cancel(said) => {
                    claims.positions.insert(said.position);
                    if !said.labels.is_empty() {
                        claims.labels.insert(said.labels.clone());
                    }
                }
                Claim::Ended(ended) => {
                    claims.ended.insert(ended.run_id.clone());
                }
                Claim::Refused(_) => {}
            }
            claims.lines.push((line_number, claim));
        }
        Ok(claims)
    }

    /// The lines with their numbers, from 1.
    pub(super) fn lines(&self) -> &[(usize, Claim)] {
        &self.lines
    }

    pub(super) fn is_claimed(&self, position: u64) -> bool {
        self.positions.contains(&position)
    }

    pub(super) fn is_labelled(&self, labels: &BTreeMap<String, String>) -> bool {
        self.labels.contains(labels)
    }

    pub(super) fn is_ended(&self, run_id: &str) -> bool {
        self.ended.contains(run_id)
    }
}

impl Auditor<'_> {
    /// Compares the log with what was read.
    pub(super) async fn claimed(&mut self, journal: &dyn Journal) -> Result<(), ReadError> {
        let claims = self.claims;
        // Which run each key stands for.
        let mut keys: HashMap<&str, &str> = HashMap::new();
        for (line, claim) in claims.lines() {
            let (run_id, problem) = match claim {
                Claim::Start(said) | Claim::Cancel(said) => {
                    let first = said.key.as_deref().map(|key| {
                        let run_id: &str = keys.entry(key).or_insert(&said.run_id);
                        run_id
                    });
                    let problem = match first.filter(|first| *first != said.run_id) {
                        Some(first) => Some(format!("the same key was also answered with {first}")),
                        None => self.acknowledged(journal, said).await?,
                    };
                    (Some(said.run_id.as_str()), problem)
                }
                Claim::Refused(refused) => (None, self.refused(journal, refused).await?),
                Claim::Ended(ended) => (Some(ended.run_id.as_str()), self.ended(ended)),
            };
            if let Some(problem) = problem {
                self.report.find(Subject::line(*line, run_id), problem);
            }
        }
        Ok(())
    }

    async fn acknowledged(
        &self,
        journal: &dyn Journal,
        said: &Acknowledged,
    ) -> Result<Option<String>, ReadError> {
        let (position, status) = (said.position, said.status);
        if !(200..300).contains(&status) {
            return Ok(Some(format!("status {status} is no acknowledgement")));
        }
        if !self.runs.contains_key(&*said.run_id) {
            return Ok(Some("the run was acknowledged and isn't in the journal".to_owned()));
        }
        match self.at.get(&position) {
            Some(found) if **found == *said.run_id => {}
            Some(found) => {
                return Ok(Some(format!("position {position} was told, and {found} is there")));
            }
            None => return Ok(Some(format!("position {position} was told, and isn't there"))),
        }
        let alike = self.labelled.get(&said.labels).map(Vec::as_slice).unwrap_or_default();
        if !said.labels.is_empty() && alike.len() != 1 {
            return Ok(Some(format!("{} runs have its labels: {}", alike.len(), alike.join(", "))));
        }
        let Some(key) = &said.key else { return Ok(None) };
        for recalled in self.recalled(journal, key).await? {
            if recalled.position != position {
                let kept = recalled.position;
                return Ok(Some(format!("position {position} was told, and {kept} is remembered")));
            }
            let answer: Value = serde_json::from_slice(&recalled.answer).unwrap_or_default();
            if answer["id"] != *said.run_id {
                return Ok(Some(format!("{} is remembered for its key", answer["id"])));
            }
        }
        Ok(None)
    }

    async fn refused(
        &self,
        journal: &dyn Journal,
        refused: &Refused,
    ) -> Result<Option<String>, ReadError> {
        let status = refused.status;
        if !(400..500).contains(&status) {
            return Ok(Some(format!("status {status} is no refusal")));
        }
        let done = self.recalled(journal, &refused.key).await?;
        let problem = done.first().map(|done| {
            format!("{} was refused with {status}, and done at {}", refused.key, done.position)
        });
        Ok(problem)
    }

    /// What is remembered for a client's key, in whichever workspace. Answers are forgotten after
    /// a day, so nothing isn't wrong.
    async fn recalled(&self, journal: &dyn Journal, key: &str) -> Result<Vec<Recalled>, ReadError> {
        let mut found = Vec::new();
        for workspace in &self.workspaces {
            found.extend(journal.recall(&format!("{workspace}/{key}")).await?);
        }
        Ok(found)
    }

    fn ended(&self, ended: &Ended) -> Option<String> {
        let said = ended.status.as_str();
        let Some(known) = self.runs.get(&*ended.run_id) else {
            return Some("the run was seen to end and isn't in the journal".to_owned());
        };
        let Some(End { status, output }) = &known.end else {
            return Some(format!("it was seen as {said}, and goes on in the journal"));
        };
        if *status != ended.status {
            return Some(format!("it was seen as {said}, and is {}", status.as_str()));
        }
        let recorded: Option<&Arc<Value>> = output.as_ref();
        match (&ended.output, recorded) {
            (Some(said), Some(recorded)) if !is_same(said, recorded) => {
                Some("another output was seen than is recorded".to_owned())
            }
            (Some(_), None) if ended.status == RunStatus::Completed => {
                Some("an output was seen, and none is recorded".to_owned())
            }
            _ => None,
        }
    }
}

/// Whether two values are the same JSON: members in any order, 1.0 as 1.
fn is_same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            let same = |(key, a)| b.get(key).is_some_and(|b| is_same(a, b));
            a.len() == b.len() && a.iter().all(same)
        }
        (a, b) => a == b,
    }
}
