//! What a run waits for, and who or what can bring it: read off its folded state.

use domain::definition::{Definition, JoinSpec};
use domain::ids::{RunId, WorkspaceId};
use domain::run::event::{Decision, QueueReason, TokenId};
use domain::run::state::{Gate, Header, InQueue, Instance, Live, Phase, Timer, Token};
use domain::run::{Run, RunStatus};
use protocol::view::{
    WaitingBranches, WaitingGate, WaitingItem, WaitingMutex, WaitingPause, WaitingQueue,
};
use protocol::{GateId, Rejection, StateAt, Waiting};
use serde_json::Value;

use crate::histories::Histories;
use crate::{Projections, compensation};

/// Entries of one answer; what a run has beyond them is counted.
const ITEMS: usize = 1_000;

impl Projections {
    pub(crate) async fn run_waiting(
        &self,
        workspace_id: WorkspaceId,
        run_id: RunId,
    ) -> Result<Waiting, Rejection> {
        let histories = self.histories();
        let folded = histories.folded(workspace_id, run_id, StateAt::Latest).await?;
        let mut waiting = histories.waiting_of(run_id, &folded.run, folded.sequence).await?;
        self.count_ahead(run_id, &mut waiting.items).await?;
        Ok(waiting)
    }

    /// Says of a run that waits for its turn how many are ahead of it, which the list of runs
    /// knows.
    pub(crate) async fn count_ahead(
        &self,
        run_id: RunId,
        items: &mut [WaitingItem],
    ) -> Result<(), Rejection> {
        for item in items {
            if let Some(queue) = item.queue.as_mut().filter(|queue| queue.limit.is_some()) {
                let ahead = self.ahead_of(run_id).await?;
                queue.ahead = Some(ahead);
                item.by.push_str(&format!("; {ahead} wait before this one"));
            }
        }
        Ok(())
    }
}

impl Histories<'_> {
    /// What a run waits for at a sequence. How many are ahead of it in a queue isn't in its
    /// history.
    pub(crate) async fn waiting_of(
        &self,
        run_id: RunId,
        run: &Run,
        sequence: u64,
    ) -> Result<Waiting, Rejection> {
        let mut waiting = Waiting {
            run_id: run_id.to_string(),
            sequence,
            status: run.status().unwrap_or(RunStatus::Running),
            pause: None,
            compensation: None,
            deadline: None,
            items: Vec::new(),
            left_out: 0,
        };
        let Some(live) = run.live() else { return Ok(waiting) };
        waiting.pause = live
            .pause
            .as_ref()
            .map(|pause| WaitingPause { since: pause.since, reason: pause.reason.clone() });
        waiting.compensation = live.compensation.as_deref().map(|compensating| {
            compensation::view(compensating.cause.status(), &compensating.record)
        });
        let of_run = live.timers.iter().find(|(_, timer)| *timer == Timer::Run);
        waiting.deadline = of_run.map(|(due, _)| *due);
        if let Some(in_queue) = &live.in_queue {
            waiting.items.push(of_queue(live, in_queue));
            return Ok(waiting);
        }
        let Header { definition, .. } = &live.header;
        let definition = self.definition_at(&definition.id.to_string(), definition.version).await?;
        let definition = definition.as_ref();
        let tokens = live.tokens.iter().map(|(id, token)| {
            let is_own = definition.is_some_and(|definition| is_own(definition, token));
            of_token(live, run_id, *id, token, is_own)
        });
        let groups = live.instances.values().map(|instance| {
            of_group(instance, definition.and_then(|definition| join_of(definition, instance)))
        });
        waiting.items = tokens.chain(groups).take(ITEMS).collect();
        let all = live.tokens.len() + live.instances.len();
        waiting.left_out = (all - waiting.items.len()) as u64;
        Ok(waiting)
    }
}

/// A run that waits for its turn.
fn of_queue(live: &Live, in_queue: &InQueue) -> WaitingItem {
    let mut queue = WaitingQueue {
        reason: "workflow_paused".to_owned(),
        key: None,
        limit: None,
        period: None,
        ahead: None,
        not_before: None,
    };
    let with = |key: &Option<String>| {
        key.as_ref().map_or_else(String::new, |key| format!(" with the key {key:?}"))
    };
    let by = match &in_queue.reason {
        QueueReason::Concurrency { key, limit, .. } => {
            queue.reason = "concurrency".to_owned();
            (queue.key, queue.limit) = (key.clone(), Some(*limit));
            format!("the end of a run{}: {limit} may go on at the same time", with(key))
        }
        QueueReason::RateLimit { key, limit, period, not_before, .. } => {
            queue.reason = "rate_limit".to_owned();
            (queue.key, queue.limit) = (key.clone(), Some(*limit));
            (queue.period, queue.not_before) = (Some(period.to_string()), *not_before);
            format!("time: {limit} runs{} may begin in {period}", with(key))
        }
        QueueReason::WorkflowPaused { workflow_id } => {
            format!("POST /api/v1/workflows/{workflow_id}/resume")
        }
    };
    let paused = if live.pause.is_some() { ", once the run is resumed" } else { "" };
    let since = Some(in_queue.since);
    WaitingItem { queue: Some(queue), since, ..item("queue", format!("{by}{paused}")) }
}

/// Whether the coordinator itself does a token's work.
pub(crate) fn is_own(definition: &Definition, token: &Token) -> bool {
    let node = definition.nodes.get(&*token.node);
    let is_own = |node: &Value| node.get("action").is_none() && node.get("steps").is_none();
    token.undo.is_none() && node.is_some_and(is_own)
}

/// Where a group comes together, and how.
fn join_of<'d>(definition: &'d Definition, instance: &Instance) -> Option<(&'d str, &'d JoinSpec)> {
    definition.transitions.iter().find_map(|transition| {
        let join = transition.join.as_ref()?;
        (Some(&join.group) == instance.group.as_ref()).then_some((&*transition.to, join))
    })
}

fn item(what: &str, by: String) -> WaitingItem {
    WaitingItem {
        token: None,
        node: None,
        group: None,
        index: None,
        what: what.to_owned(),
        by,
        since: None,
        until: None,
        attempt: None,
        signal: None,
        undoes: None,
        child_run_id: None,
        gate: None,
        queue: None,
        mutex: None,
        branches: None,
    }
}

/// What a token waits for.
pub(crate) fn of_token(
    live: &Live,
    run_id: RunId,
    id: TokenId,
    token: &Token,
    is_own: bool,
) -> WaitingItem {
    let paused = if live.pause.is_some() { ", once the run is resumed" } else { "" };
    let undo = if token.undo.is_some() { " to undo the node" } else { "" };
    let goes_on = || item("coordinator", "the coordinator, which goes on by itself".to_owned());
    let waits = match &token.phase {
        Phase::Working { .. } if is_own => goes_on(),
        Phase::Working { attempt } => WaitingItem {
            attempt: Some(*attempt),
            ..item("task", format!("a worker, with the outcome of attempt {attempt}{undo}{paused}"))
        },
        Phase::BackingOff { attempt, until } => WaitingItem {
            attempt: Some(*attempt),
            until: Some(*until),
            ..item("retry", format!("the clock: attempt {attempt}{undo} starts then{paused}"))
        },
        Phase::Waiting { until, signal: None } => {
            WaitingItem { until: *until, ..item("timer", format!("the clock{paused}")) }
        }
        Phase::Waiting { until, signal: Some(name) } => WaitingItem {
            until: *until,
            signal: Some(name.to_string()),
            ..item("signal", format!("POST /api/v1/runs/{run_id}/signals/{name}"))
        },
        Phase::Blocked { mutex, turn } => of_mutex(live, mutex, *turn),
        Phase::Gated { gate } => {
            let id = GateId { run_id, token: id }.to_string();
            let by = format!("{}: POST /api/v1/gates/{id}/answers", people(gate));
            let gate_view = WaitingGate {
                id,
                title: gate.title.clone(),
                assignees: gate.assignees.clone(),
                roles: gate.roles.clone(),
                approved: gate.count(Decision::Approve),
                approvals: gate.approvals,
                rejected: gate.count(Decision::Reject),
                rejections: gate.rejections,
            };
            WaitingItem { until: gate.deadline, gate: Some(gate_view), ..item("gate", by) }
        }
        Phase::AwaitingChild { run_id, definition, until, .. } => WaitingItem {
            until: *until,
            child_run_id: Some(run_id.to_string()),
            ..item("child", format!("the child run {run_id} of {definition}"))
        },
        Phase::Succeeded { .. } | Phase::Failed { .. } => goes_on(),
    };
    let branch = token.branch;
    let instance = branch.and_then(|branch| live.instances.get(&branch.instance));
    WaitingItem {
        token: Some(id),
        node: Some(token.node.to_string()),
        group: instance.and_then(|instance| instance.group.clone()),
        index: branch.map(|branch| branch.index),
        since: Some(token.since),
        undoes: token.undo.as_ref().map(|undo| undo.of),
        ..waits
    }
}

fn of_mutex(live: &Live, name: &str, turn: u64) -> WaitingItem {
    let mutex = live.mutexes.get(name);
    let held_by = mutex.and_then(|mutex| mutex.holder);
    let ahead = mutex.map_or(0, |mutex| mutex.queue.range(..turn).count()) as u64;
    let holder = held_by.and_then(|holder| Some((holder, live.tokens.get(&holder)?)));
    let holder = match holder {
        Some((holder, token)) => format!("token {holder} at {}, which has it", token.node),
        None => "the coordinator, which passes it on".to_owned(),
    };
    let queue = if ahead > 0 { format!(", and {ahead} that came earlier") } else { String::new() };
    let mutex = WaitingMutex { name: name.to_owned(), held_by, ahead };
    let by = format!("the mutex {name}: {holder}{queue}");
    WaitingItem { mutex: Some(mutex), ..item("mutex", by) }
}

/// Who may still answer a gate, in words.
fn people(gate: &Gate) -> String {
    let may = |name: &&String| {
        gate.not_by.as_ref() != Some(*name) && !gate.answers.iter().any(|one| one.actor == **name)
    };
    let assignees = gate.assignees.iter().filter(may).cloned();
    let roles = gate.roles.iter().map(|role| format!("whoever has the role {role}"));
    let who: Vec<String> = assignees.chain(roles).collect();
    match (who.is_empty(), &gate.not_by) {
        (false, _) => who.join(", "),
        (true, None) => "anybody".to_owned(),
        (true, Some(starter)) => format!("anybody but {starter}"),
    }
}

fn of_group(instance: &Instance, join: Option<(&str, &JoinSpec)>) -> WaitingItem {
    let outstanding = instance.outstanding();
    let declared = instance.declared;
    let needed = join.map(|(_, spec)| instance.needed(spec));
    let by = match (instance.fired, needed) {
        (true, _) => format!("nothing: its join has fired, and {outstanding} branches go on"),
        (false, None) => format!("its branches: {outstanding} of {declared} are out"),
        (false, Some(needed)) => {
            let arrived = instance.arrived.len();
            format!(
                "its branches: {arrived} arrived of {needed} that the join needs, {outstanding} of \
                 {declared} are out"
            )
        }
    };
    WaitingItem {
        group: instance.group.clone(),
        node: join.map(|(node, _)| node.to_owned()),
        until: instance.deadline,
        branches: Some(WaitingBranches {
            declared: instance.declared,
            arrived: instance.arrived.len() as u64,
            failed: instance.failed.len() as u64,
            ended: instance.ended.len() as u64,
            outstanding,
            needed,
        }),
        ..item("branches", by)
    }
}
