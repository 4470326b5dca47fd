//! How a run that was forked becomes one of its own.

use std::sync::Arc;

use serde_json::Value;

use crate::run::event::{BranchPatch, RunForked, RunStarted, Usage};
use crate::run::state::{Fork, InQueue, Live, Phase, Run, Timer};

impl Run {
    /// The same run, as if it had begun with another event: with that of a fork, which differs only
    /// in what others know it by.
    pub(in crate::run) fn begun_by(mut self, started: &RunStarted) -> Self {
        if let Self::Live(live) = &mut self {
            let header = &mut live.header;
            header.labels.clone_from(&started.labels);
            header.parent = started.parent;
            header.shares = started.forked_from.map(|forked| forked.sequence);
        }
        self
    }
}

impl Live {
    /// From here on it is called otherwise, and what it did, used up or handed out so far is the
    /// other run's: it isn't undone here. What was armed has as much time left as it had.
    pub(super) fn fork(&mut self, forked: &RunForked) {
        let header = &mut self.header;
        header.run_id = forked.run_id;
        header.started_by.clone_from(&forked.forked_by);
        header.fork = Some(Fork {
            run_id: forked.from,
            sequence: forked.sequence,
            until: forked.until,
            adopt: forked.adopt,
        });
        header.experiment = forked.experiment.as_deref().cloned().map(Arc::new);
        if let Some(input) = &forked.input {
            header.input = Arc::new(input.clone());
        }
        if let Some(definition) = &forked.definition {
            header.definition = definition.clone();
            header.pins.clone_from(&forked.pins);
        }
        header.admission = forked.admission.as_deref().cloned();
        let reason = header.admission.as_ref().map(|admission| admission.reason(0, false, None));
        self.in_queue = reason.map(|reason| InQueue { since: self.at, reason });
        (self.pause, self.usage) = (None, Usage::default());
        self.completions.clear();
        self.completions_bytes = 0;
        // A back-off spares whoever is called, for whom time has gone on.
        self.postpone(self.at - forked.since, |timer| !matches!(timer, Timer::Retry(_)));
        self.timers.extend(forked.deadline.map(|deadline| (deadline, Timer::Run)));
        for (id, token) in &mut self.tokens {
            token.handed_out = 0;
            if let Phase::AwaitingChild { run_id, fork_of, .. } = &mut token.phase {
                *run_id = forked.run_id.child(*id);
                let child = forked.children.iter().find(|child| child.token == *id);
                *fork_of = child.cloned().map(Arc::new);
                self.children.insert(*id, *run_id);
            }
        }
        for (name, patch) in members(forked.state.as_ref()) {
            self.root.patch(name, patch, None);
        }
        for BranchPatch { token: id, patch } in &forked.branches {
            let Some(branch) = self.tokens.get(id).and_then(|token| token.branch) else { continue };
            for (name, patch) in members(Some(patch)) {
                let beneath = self.beneath(branch, name);
                if let Some(token) = self.tokens.get_mut(id) {
                    token.vars.patch(name, patch, beneath);
                }
            }
        }
    }
}

fn members(patch: Option<&Value>) -> impl Iterator<Item = (&String, &Value)> {
    patch.and_then(Value::as_object).into_iter().flatten()
}
