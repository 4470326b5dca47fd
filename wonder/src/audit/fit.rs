//! Whether an event fits the state that it is folded into. The engine never decides one that
//! doesn't, and its fold would ignore it: so each token ends once, and each attempt has one
//! outcome at most.

use domain::resource::{self, Resource};
use domain::run::event::{ChildStarted, Fired, GateOutcome, InstanceId, RunStarted, TokenId};
use domain::run::state::{Instance, Live, Phase, Token};
use domain::run::{Event, Run};

mod undo;

/// Checks a run's event against the run before it.
pub(super) fn check(run: &Run, event: &Event, id: &str) -> Result<(), String> {
    let live = match (run, event) {
        (Run::NotStarted, Event::RunStarted(started)) => return check_start(started, id),
        (Run::NotStarted, other) => {
            return Err(format!("{} stands before the run's start", other.event_type()));
        }
        (Run::Closed(_), other) => {
            return Err(format!("{} stands after the run's end", other.event_type()));
        }
        (Run::Live(live), _) => live,
    };
    undo::check_kind(live, event)?;
    match event {
        Event::RunStarted(_) => Err("the run starts a second time".to_owned()),
        Event::TaskSucceeded { token, attempt, .. }
        | Event::TaskFailed { token, attempt, .. }
        | Event::UndoSucceeded { token, attempt, .. }
        | Event::UndoFailed { token, attempt, .. }
        | Event::TaskHandedOut { token, attempt } => match &token_of(live, *token)?.phase {
            Phase::Working { attempt: current } if current == attempt => Ok(()),
            phase => Err(format!(
                "{} of token {token}, attempt {attempt}, while it is {}",
                event.event_type(),
                name(phase)
            )),
        },
        Event::RetryStarted { token, attempt } => match &token_of(live, *token)?.phase {
            Phase::BackingOff { attempt: next, .. } if next == attempt => Ok(()),
            phase => Err(format!(
                "attempt {attempt} of token {token} starts while it is {}",
                name(phase)
            )),
        },
        Event::MutexAwaited { token, .. } => check_working(live, *token, event),
        Event::MutexTaken { token, mutex } => check_mutex(live, *token, mutex),
        Event::TokensCancelled(cancelled) => match &token_of(live, cancelled.by)?.phase {
            Phase::Succeeded { .. } | Phase::Failed { .. } => Ok(()),
            phase => Err(format!("token {} cancels while it is {}", cancelled.by, name(phase))),
        },
        Event::NodeComputed { token, .. }
        | Event::WaitStarted { token, .. }
        | Event::EventEmitted { token, .. }
        | Event::MetricEmitted { token, .. } => check_working(live, *token, event),
        Event::GateOpened(opened) => check_working(live, opened.token, event),
        Event::ChildStarted(started) => check_child(live, started),
        Event::ChildEnded(ended) => match &token_of(live, ended.token)?.phase {
            Phase::AwaitingChild { run_id, .. } if *run_id == ended.run_id => Ok(()),
            phase => Err(format!(
                "the child {} of token {} ends while it is {}",
                ended.run_id,
                ended.token,
                name(phase)
            )),
        },
        Event::NodeFailed { token, .. } => match &token_of(live, *token)?.phase {
            Phase::BackingOff { .. } => Err(format!("token {token} fails while it backs off")),
            Phase::Gated { .. } => Err(format!("token {token} fails while its gate is open")),
            Phase::Blocked { .. } => {
                Err(format!("token {token} fails while it waits for its mutex"))
            }
            Phase::Working { .. }
            | Phase::Waiting { .. }
            | Phase::AwaitingChild { .. }
            | Phase::Succeeded { .. }
            | Phase::Failed { .. } => Ok(()),
        },
        Event::WaitEnded { token, .. } => match &token_of(live, *token)?.phase {
            Phase::Working { .. } | Phase::Waiting { .. } => Ok(()),
            phase => Err(format!("the wait of token {token} ends while it is {}", name(phase))),
        },
        Event::SignalReceived(signal) => {
            let next = live.signals.received + 1;
            let found = signal.number;
            if found == next {
                Ok(())
            } else {
                Err(format!("signal {found} stands where {next} should"))
            }
        }
        Event::GateAnswered(answered) => check_gate(live, answered.token),
        // The gates of branches that were given up are closed after that.
        Event::GateClosed(closed) if closed.outcome == GateOutcome::Cancelled => {
            let is_there = live.tokens.contains_key(&closed.token);
            let gone = "is closed as cancelled while its token is there";
            if is_there {
                Err(format!("the gate of token {} {gone}", closed.token))
            } else {
                Ok(())
            }
        }
        Event::GateClosed(closed) => check_gate(live, closed.token),
        Event::RunQueued(_) | Event::RunAdmitted { .. } if has_begun(live) => {
            Err(format!("{} of a run that has begun", event.event_type()))
        }
        Event::RunQueued(_) | Event::RunAdmitted { .. } => Ok(()),
        Event::RunPaused { .. } if live.pause.is_some() => Err("the run pauses twice".to_owned()),
        Event::RunResumed {} if live.pause.is_none() => {
            Err("the run is resumed while it isn't paused".to_owned())
        }
        Event::RunForked(_) if live.compensation.is_some() => {
            Err("the run is forked while it undoes its work".to_owned())
        }
        Event::RunPaused { .. } | Event::RunResumed {} | Event::RunForked(_) => Ok(()),
        Event::TokenRouted { token, fired, extended, .. } => {
            for one in extended {
                instance_of(live, one.instance)?;
            }
            check_routed(live, *token, fired)
        }
        Event::BranchesSpawned { instance, index, token, count, .. } => {
            let found = instance_of(live, *instance)?;
            if *index != found.spawned || index + count > found.declared {
                return Err(format!(
                    "branches {index} to {} are made after {} of {}",
                    index + count,
                    found.spawned,
                    found.declared
                ));
            }
            new_token(live, *token)
        }
        Event::JoinFired { instance, token, .. } => {
            if instance_of(live, *instance)?.fired {
                return Err(format!("the join of instance {instance} fires a second time"));
            }
            new_token(live, *token)
        }
        Event::JoinFailed { instance, .. } | Event::GroupEnded { instance } => {
            instance_of(live, *instance).map(|_| ())
        }
        Event::RunCompleted { .. } if live.tokens.is_empty() && live.instances.is_empty() => Ok(()),
        Event::RunCompleted { .. } => Err(format!(
            "the run completes with {} tokens and {} fan-outs under way",
            live.tokens.len(),
            live.instances.len()
        )),
        Event::CompensationStarted(started) => undo::check_start(live, started),
        Event::UndoStarted { token, undoes, .. } => {
            undo::check_next(live, *undoes)?;
            new_token(live, *token)
        }
        Event::CompensationEnded(record) => undo::check_end(live, record),
        Event::RunFailed { .. } | Event::RunCancelled { .. } | Event::RunTimedOut { .. } => {
            undo::check_cause(live, event)
        }
    }
}

fn check_start(started: &RunStarted, id: &str) -> Result<(), String> {
    let own = started.run_id.to_string();
    // Up to where it was forked, a fork is called as the other run is.
    if own == id || started.forked_from.is_some() {
        Ok(())
    } else {
        Err(format!("the run says that it is {own}"))
    }
}

/// Whether more has happened than the start.
/// Whether a run has begun, and isn't a fork that waits for its turn.
fn has_begun(live: &Live) -> bool {
    if live.header.fork.is_some() {
        return live.in_queue.is_none();
    }
    live.next_token > 2
        || !matches!(
            live.tokens.get(&1).map(|token| &token.phase),
            Some(Phase::Working { attempt: 1 })
        )
}

fn check_working(live: &Live, token: TokenId, event: &Event) -> Result<(), String> {
    match &token_of(live, token)?.phase {
        Phase::Working { .. } => Ok(()),
        phase => {
            Err(format!("{} of token {token} while it is {}", event.event_type(), name(phase)))
        }
    }
}

fn check_child(live: &Live, started: &ChildStarted) -> Result<(), String> {
    let derived = live.header.run_id.child(started.token);
    if derived != started.run_id {
        let found = started.run_id;
        return Err(format!("the child of token {} is {found}, not {derived}", started.token));
    }
    match &token_of(live, started.token)?.phase {
        Phase::Working { .. } => Ok(()),
        phase => Err(format!("token {} starts a child while it is {}", started.token, name(phase))),
    }
}

/// Nobody holds it, and whoever waits takes it in turn.
fn check_mutex(live: &Live, id: TokenId, mutex: &str) -> Result<(), String> {
    let phase = &token_of(live, id)?.phase;
    let (holder, first) = match live.mutexes.get(mutex) {
        Some(mutex) => (mutex.holder, mutex.queue.values().next().copied()),
        None => (None, None),
    };
    match (phase, holder) {
        (_, Some(holder)) => {
            Err(format!("token {id} takes the mutex {mutex}, which token {holder} has"))
        }
        (Phase::Blocked { .. }, None) if first == Some(id) => Ok(()),
        (Phase::Working { .. }, None) if first.is_none() => Ok(()),
        (_, None) => Err(format!("token {id} takes the mutex {mutex} out of turn")),
    }
}

fn check_gate(live: &Live, token: TokenId) -> Result<(), String> {
    match &token_of(live, token)?.phase {
        Phase::Gated { .. } => Ok(()),
        phase => Err(format!("no gate is open at token {token}: it is {}", name(phase))),
    }
}

fn check_routed(live: &Live, id: TokenId, fired: &[Fired]) -> Result<(), String> {
    match &token_of(live, id)?.phase {
        Phase::Succeeded { .. } | Phase::Failed { .. } => {}
        phase => return Err(format!("token {id} leaves its node while it is {}", name(phase))),
    }
    let mut next = live.next_token;
    for one in fired {
        match one {
            Fired::Moved { token, .. } if *token < next => {
                return Err(format!("token {token} is made a second time"));
            }
            Fired::Moved { token, .. } => next = token + 1,
            Fired::Arrived { instance, late: false, .. } => {
                instance_of(live, *instance)?;
            }
            Fired::Arrived { late: true, .. } => {}
        }
    }
    Ok(())
}

fn new_token(live: &Live, id: TokenId) -> Result<(), String> {
    if id < live.next_token { Err(format!("token {id} is made a second time")) } else { Ok(()) }
}

fn token_of(live: &Live, id: TokenId) -> Result<&Token, String> {
    live.tokens.get(&id).map(|token| &**token).ok_or_else(|| format!("there is no token {id} here"))
}

fn instance_of(live: &Live, id: InstanceId) -> Result<&Instance, String> {
    live.instances.get(&id).ok_or_else(|| format!("there is no fan-out {id} here"))
}

fn name(phase: &Phase) -> String {
    match phase {
        Phase::Working { attempt } => format!("at work on attempt {attempt}"),
        Phase::BackingOff { attempt, .. } => format!("waiting for attempt {attempt}"),
        Phase::Waiting { .. } => "waiting for a time or a signal".to_owned(),
        Phase::Blocked { mutex, .. } => format!("waiting for the mutex {mutex}"),
        Phase::Gated { .. } => "at an open gate".to_owned(),
        Phase::AwaitingChild { run_id, .. } => format!("waiting for the child {run_id}"),
        Phase::Succeeded { .. } => "through as succeeded".to_owned(),
        Phase::Failed { .. } => "through as failed".to_owned(),
    }
}

/// Checks a resource's event against the resource before it.
pub(super) fn check_resource(before: &Resource, event: &resource::Event) -> Result<(), String> {
    let last = before.revisions().map_or(0, |revisions| revisions.latest);
    match (before, event) {
        (Resource::Absent, resource::Event::Created { revision: 1, .. })
        | (Resource::Live(_), resource::Event::Archived) => Ok(()),
        (Resource::Live(_), resource::Event::Revised { revision, .. }) if *revision == last + 1 => {
            Ok(())
        }
        (Resource::Absent, other) => {
            Err(format!("{} stands before the resource's creation", other.event_type()))
        }
        (Resource::Archived(_), other) => {
            Err(format!("{} stands after the resource was archived", other.event_type()))
        }
        (Resource::Live(_), other) => {
            Err(format!("{} doesn't follow revision {last}", other.event_type()))
        }
    }
}
