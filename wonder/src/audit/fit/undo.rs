//! Whether what undoes a run's work fits: newest first, one after another, and nothing beside it.

use domain::run::Event;
use domain::run::event::{Compensation, CompensationStarted, TokenId};
use domain::run::state::Live;

pub(super) fn check_start(live: &Live, started: &CompensationStarted) -> Result<(), String> {
    let (told, there) = (started.total, live.completions.len() as u64);
    if live.compensation.is_some() {
        return Err("the run begins a second time to undo its work".to_owned());
    }
    if told == there {
        Ok(())
    } else {
        Err(format!("{told} completions are to be undone where there are {there}"))
    }
}

/// The newest completion is undone, and nothing else at the same time.
pub(super) fn check_next(live: &Live, undoes: TokenId) -> Result<(), String> {
    if let Some(other) = live.tokens.keys().next() {
        return Err(format!("token {undoes} is undone while token {other} is at work"));
    }
    match live.completions.last() {
        _ if live.compensation.is_none() => {
            Err(format!("token {undoes} is undone while the run goes on"))
        }
        Some(newest) if newest.token == undoes => Ok(()),
        Some(newest) => Err(format!("token {undoes} is undone before token {}", newest.token)),
        None => Err(format!("token {undoes} is undone, and nothing is left to be")),
    }
}

pub(super) fn check_end(live: &Live, record: &Compensation) -> Result<(), String> {
    match &live.compensation {
        Some(compensating) if compensating.record == *record => Ok(()),
        Some(_) => Err("what is told of the undone work isn't what was counted".to_owned()),
        None => Err("the run ends to undo its work, which it didn't begin".to_owned()),
    }
}

/// A run that has undone its work ends with what made it do so.
pub(super) fn check_cause(live: &Live, event: &Event) -> Result<(), String> {
    match &live.compensation {
        Some(compensating) if Event::from(compensating.cause.clone()) != *event => {
            Err(format!("the run ends with {} for another cause", event.event_type()))
        }
        Some(_) | None => Ok(()),
    }
}

/// A token that undoes ends as that, and any other one doesn't.
pub(super) fn check_kind(live: &Live, event: &Event) -> Result<(), String> {
    let (token, wants_undo) = match event {
        Event::TaskSucceeded { token, .. } | Event::TaskFailed { token, .. } => (token, false),
        Event::UndoSucceeded { token, .. } | Event::UndoFailed { token, .. } => (token, true),
        Event::RunCompleted { .. } if live.compensation.is_some() => {
            return Err("the run completes after it began to undo its work".to_owned());
        }
        _ => return Ok(()),
    };
    let undoes = live.tokens.get(token).map(|token| token.undo.is_some());
    if undoes.is_none_or(|undoes| undoes == wants_undo) {
        Ok(())
    } else {
        Err(format!("{} of token {token}, which is for something else", event.event_type()))
    }
}
