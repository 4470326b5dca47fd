//! What a run waits for, and who or what can bring it: read off its folded state.

use domain::ids::{RunId, WorkspaceId};
use domain::run::event::{Decision, TokenId};
use domain::run::state::{Gate, Instance, Live, Phase, Timer, Token};
use protocol::view::{WaitingBranches, WaitingGate, WaitingItem, WaitingPause};
use protocol::{GateId, Rejection, StateAt, Waiting};

use crate::Projections;

/// Entries of one answer; what a run has beyond them is counted.
const ITEMS: usize = 1_000;

impl Projections {
    pub(crate) async fn run_waiting(
        &self,
        workspace_id: WorkspaceId,
        run_id: RunId,
    ) -> Result<Waiting, Rejection> {
        let folded = self.folded(workspace_id, run_id, StateAt::Latest).await?;
        let mut waiting = Waiting {
            run_id: run_id.to_string(),
            sequence: folded.sequence,
            status: folded.status,
            pause: None,
            deadline: None,
            items: Vec::new(),
            left_out: 0,
        };
        let Some(live) = folded.run.live() else { return Ok(waiting) };
        waiting.pause = live
            .pause
            .as_ref()
            .map(|pause| WaitingPause { since: pause.since, reason: pause.reason.clone() });
        let of_run = live.timers.iter().find(|(_, timer)| *timer == Timer::Run);
        waiting.deadline = of_run.map(|(due, _)| *due);
        let tokens = live.tokens.iter().map(|(id, token)| of_token(live, run_id, *id, token));
        let groups = live.instances.values().map(of_group);
        waiting.items = tokens.chain(groups).take(ITEMS).collect();
        let all = live.tokens.len() + live.instances.len();
        waiting.left_out = (all - waiting.items.len()) as u64;
        Ok(waiting)
    }
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
        gate: None,
        branches: None,
    }
}

fn of_token(live: &Live, run_id: RunId, id: TokenId, token: &Token) -> WaitingItem {
    let paused = if live.pause.is_some() { ", once the run is resumed" } else { "" };
    let waits = match &token.phase {
        Phase::Working { attempt } => WaitingItem {
            attempt: Some(*attempt),
            ..item("worker", format!("a worker, with the outcome of attempt {attempt}{paused}"))
        },
        Phase::BackingOff { attempt, until } => WaitingItem {
            attempt: Some(*attempt),
            until: Some(*until),
            ..item("retry", format!("the clock: attempt {attempt} starts then{paused}"))
        },
        Phase::Waiting { until, signal: None } => {
            WaitingItem { until: *until, ..item("time", format!("the clock{paused}")) }
        }
        Phase::Waiting { until, signal: Some(name) } => WaitingItem {
            until: *until,
            signal: Some(name.to_string()),
            ..item("signal", format!("POST /api/v1/runs/{run_id}/signals/{name}"))
        },
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
        Phase::Succeeded { .. } | Phase::Failed { .. } => {
            item("coordinator", "the coordinator, which goes on by itself".to_owned())
        }
    };
    let branch = token.branch;
    let instance = branch.and_then(|branch| live.instances.get(&branch.instance));
    WaitingItem {
        token: Some(id),
        node: Some(token.node.to_string()),
        group: instance.and_then(|instance| instance.group.clone()),
        index: branch.map(|branch| branch.index),
        since: Some(token.since),
        ..waits
    }
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

fn of_group(instance: &Instance) -> WaitingItem {
    let outstanding = instance.outstanding();
    let by = match instance.fired {
        true => format!("nothing: its join has fired, and {outstanding} branches go on"),
        false => format!("its branches: {outstanding} of {} are out", instance.declared),
    };
    WaitingItem {
        group: instance.group.clone(),
        until: instance.deadline,
        branches: Some(WaitingBranches {
            declared: instance.declared,
            arrived: instance.arrived.len() as u64,
            failed: instance.failed.len() as u64,
            ended: instance.ended.len() as u64,
            outstanding,
        }),
        ..item("branches", by)
    }
}
