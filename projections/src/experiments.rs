//! What the forks of an experiment came to, beside the runs that they were made of.

use std::ops::ControlFlow;

use domain::codec;
use domain::experiment::{AGGREGATE, Event as OfExperiment, LABEL, State};
use domain::ids::{ExperimentId, WorkspaceId};
use domain::limits;
use domain::run::course::{Calls, Course, Parted};
use domain::run::state::Closed;
use domain::run::{Event, RunStatus};
use protocol::experiment::{
    ExperimentCalls, ExperimentEnd, ExperimentParting, ExperimentProgress, ExperimentReport,
    ExperimentRun, ExperimentTotals, ExperimentUsage,
};
use protocol::{PageRequest, Rejection, RunFilter, RunQueries, RunView};
use serde_json::json;

use crate::compare::shortened;
use crate::histories::Histories;
use crate::payload::Blobs;
use crate::{Projections, refusal};

/// Events of an experiment that are read at a time.
const PAGE: usize = 500;

impl Projections {
    /// How far an experiment is, by its name.
    pub(crate) async fn progress_of(
        &self,
        workspace_id: WorkspaceId,
        name: &str,
    ) -> Result<ExperimentProgress, Rejection> {
        let id = ExperimentId::of(workspace_id, name).to_string();
        self.histories().progress(&id).await?.ok_or_else(|| refusal::not_found("experiment", name))
    }

    /// The report of an experiment, by its name.
    pub(crate) async fn experimented(
        &self,
        workspace_id: WorkspaceId,
        name: &str,
        min_position: Option<u64>,
    ) -> Result<ExperimentReport, Rejection> {
        let labels = vec![(LABEL.to_owned(), name.to_owned())];
        let filter = RunFilter { labels, ..RunFilter::default() };
        let limit = u32::try_from(limits::EXPERIMENT_RUNS).unwrap_or(u32::MAX);
        let page = PageRequest { limit, cursor: None, min_position };
        let mut forks = RunQueries::list(self, workspace_id, filter, page).await?.items;
        forks.retain(|fork| fork.forked_from.is_some());
        forks.reverse();
        // Read after the forks: what has ended among these isn't said to go on.
        let progress = self.progress_of(workspace_id, name).await?;
        let mut report = ExperimentReport {
            name: progress.name,
            status: progress.status,
            left: progress.left,
            refused: progress.refused,
            ..ExperimentReport::default()
        };
        for fork in forks {
            report.items.push(self.histories().tried(workspace_id, &fork).await?);
        }
        let mut totals = ExperimentTotals::default();
        report.items.iter().for_each(|one| totals.add(one));
        Ok(ExperimentReport { totals, ..report })
    }
}

impl Histories<'_> {
    /// How far an experiment is, if anything was asked of it.
    async fn progress(&self, id: &str) -> Result<Option<ExperimentProgress>, Rejection> {
        let (mut state, mut last, mut position) = (State::default(), 0, 0);
        loop {
            let page = self.past.load(AGGREGATE, id, last, PAGE).await.map_err(refusal::journal)?;
            let stored = page.iter().map(|event| event.payload.as_ref());
            let blobs = Blobs::fetch(self.past, stored).await.map_err(refusal::journal)?;
            for recorded in &page {
                let (name, version) = (&recorded.event_type, recorded.event_version);
                let found = |hash: &str| blobs.get(hash);
                let event: OfExperiment = codec::decode(name, version, &recorded.payload, &found)
                    .map_err(|error| {
                    refusal::damaged(&format!("the experiment {id}"), &error)
                })?;
                state.evolve(&event);
                (last, position) = (recorded.sequence, recorded.position);
            }
            if page.len() < PAGE {
                return Ok(state.begun().map(|begun| ExperimentProgress::of(begun, position)));
            }
        }
    }

    async fn tried(
        &self,
        workspace_id: WorkspaceId,
        fork: &RunView,
    ) -> Result<ExperimentRun, Rejection> {
        let from = fork.forked_from.as_ref().map(|from| from.run_id.clone()).unwrap_or_default();
        let (before, _) = self.course(workspace_id, &from).await?;
        let (after, adopted) = self.course(workspace_id, &fork.id).await?;
        let (own, other) = (end_of(&before), end_of(&after));
        let has_ended = other.status.is_terminal();
        let same_output = output(&before) == output(&after);
        let ends_alike =
            (own.status, &own.code, &own.node) == (other.status, &other.code, &other.node);
        let (parts, values) = before.parts_from(&after);
        let result = match (&parts, &values) {
            _ if !has_ended => "running",
            (Some(_), _) => "path",
            _ if !ends_alike => "path",
            (None, Some(_)) => "values",
            (None, None) if !same_output => "values",
            (None, None) => "same",
        };
        let mut all = after.run().usage();
        adopted.iter().for_each(|sequence| all.add(&before.used_at(*sequence)));
        let usage = ExperimentUsage {
            before: before.run().usage(),
            after: all,
            spent: after.run().usage(),
        };
        let Calls { made, adopted, stubbed, capped } = after.calls;
        Ok(ExperimentRun {
            run_id: from,
            fork_id: fork.id.clone(),
            definition: format!("{}@{}", fork.definition.name, fork.definition.version),
            result: result.to_owned(),
            before: own,
            after: other,
            same_output,
            parts: parts.map(shown),
            values: values.map(shown),
            calls: ExperimentCalls { made, adopted, stubbed, capped },
            usage,
        })
    }

    /// The way that a run went, and the events of another run that it has taken over.
    async fn course(
        &self,
        workspace_id: WorkspaceId,
        id: &str,
    ) -> Result<(Course, Vec<u64>), Rejection> {
        let started = self.run_started(workspace_id, id).await?;
        let mut plan = self.plan_of(&started.definition, &started.pins).await?;
        let mut others = self.plans_of_forks(id, &started).await?;
        let (mut course, mut taken_over) = (Course::default(), Vec::new());
        self.each_event(id, 0, |recorded, event| {
            if let Some(other) = others.remove(&recorded.sequence) {
                plan = other;
            }
            course.take(&event, recorded.sequence, recorded.recorded_at, &plan);
            match &event {
                // What was taken over before is its run's.
                Event::RunForked(_) => taken_over.clear(),
                Event::TaskSucceeded { adopted, .. } | Event::TaskFailed { adopted, .. } => {
                    taken_over.extend(*adopted);
                }
                _ => {}
            }
            ControlFlow::<()>::Continue(())
        })
        .await?;
        Ok((course, taken_over))
    }
}

fn output(course: &Course) -> Option<&serde_json::Value> {
    course.run().closed()?.output.as_deref()
}

fn end_of(course: &Course) -> ExperimentEnd {
    let failure = course.run().closed().and_then(Closed::failure);
    ExperimentEnd {
        status: course.run().status().unwrap_or(RunStatus::Running),
        node: failure.as_ref().and_then(|failure| failure.node.clone()),
        code: failure.map(|failure| failure.code),
        output: output(course).cloned().map(shortened),
    }
}

fn shown(parted: Parted) -> ExperimentParting {
    let Parted { node, sequence, before, after } = parted;
    let shown = |led| shortened(json!(led));
    ExperimentParting { node, sequence, before: before.map(shown), after: after.map(shown) }
}
