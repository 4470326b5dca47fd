//! What is in a bundle, in short.

use std::collections::BTreeSet;

use domain::ids::RunId;
use domain::run::event::RunStarted;
use domain::run::state::Closed;
use domain::run::{Event, Run, RunStatus};
use protocol::bundle::{BundleView, BundledRun};
use protocol::{EventEnvelope, Rejection, RunError};

use super::file::Bundle;
use crate::events::{SHOWN_BYTES, shown};
use crate::histories::Histories;
use crate::refusal;

impl Bundle {
    /// What is in it. Reads all of it.
    ///
    /// # Errors
    /// Where the file has changed since it was opened.
    pub async fn view(&self) -> Result<BundleView, Rejection> {
        let histories = Histories::of(self);
        let known: BTreeSet<RunId> = self.runs().iter().copied().collect();
        let (mut runs, mut left_out) = (Vec::new(), BTreeSet::new());
        for run_id in self.runs() {
            let (workspace_id, id) = (self.manifest().workspace_id, run_id.to_string());
            let started = histories.run_started(workspace_id, &id).await?;
            let (mut run, mut sequence, mut last) = (Run::default(), 0, started.started_at);
            let read = histories.each_event(&id, 0, |recorded, event| {
                if let Event::ChildStarted(child) = &event
                    && !known.contains(&child.run_id)
                {
                    left_out.insert(child.run_id);
                }
                run.evolve(&event, recorded.recorded_at);
                (sequence, last) = (recorded.sequence, recorded.recorded_at);
                std::ops::ControlFlow::<()>::Continue(())
            });
            read.await?;
            let is_root = *run_id == self.manifest().run_id;
            runs.push(of_run(*run_id, &started, run, (sequence, last), is_root));
        }
        Ok(BundleView {
            manifest: self.manifest().clone(),
            events: runs.iter().map(|run| run.sequence).sum(),
            values: self.values(),
            referred: self.referred(),
            runs,
            children_left_out: left_out.len() as u64,
        })
    }

    /// The events of a run after a sequence, at most `limit`, as a server shows them.
    ///
    /// # Errors
    /// Where the file has changed since it was opened.
    pub async fn envelopes(
        &self,
        run_id: RunId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<EventEnvelope>, Rejection> {
        let events = Histories::of(self).run_events(&run_id.to_string(), after, limit).await?;
        let epoch = u32::from_str_radix(&self.manifest().epoch, 16)
            .map_err(|error| refusal::damaged("the bundle's epoch", &error))?;
        let mut envelopes = Vec::with_capacity(events.len());
        for event in &events {
            envelopes.push(shown(self, epoch, event, SHOWN_BYTES).await?.envelope);
        }
        Ok(envelopes)
    }
}

/// A run at its last event. Of children it isn't said what they were given and gave.
fn of_run(
    run_id: RunId,
    started: &RunStarted,
    run: Run,
    (sequence, last): (u64, chrono::DateTime<chrono::Utc>),
    is_root: bool,
) -> BundledRun {
    let definition = run.header().map_or(&started.definition, |header| &header.definition);
    let definition = format!("{}@{}", definition.name, definition.version);
    let closed = run.closed();
    let failure = closed.and_then(Closed::failure);
    let output = closed.and_then(|closed| closed.output.as_deref().cloned());
    let input = run.header().map(|header| (*header.input).clone());
    BundledRun {
        run_id: run_id.to_string(),
        status: run.status().unwrap_or(RunStatus::Running),
        definition,
        parent_run_id: started.parent.as_ref().map(|parent| parent.run_id.to_string()),
        sequence,
        started_at: started.started_at,
        ended_at: closed.map(|_| last),
        input: input.filter(|_| is_root),
        output: output.filter(|_| is_root),
        error: failure.as_ref().map(RunError::from),
        usage: run.usage(),
    }
}
