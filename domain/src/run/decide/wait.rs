//! Waits for times and signals, and signals themselves.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::{Decider, at, boxed, evaluated};
use crate::codec;
use crate::definition::plan::{NodeWork, PlanWait};
use crate::expression::{Binding, Expression};
use crate::ids::Name;
use crate::limits;
use crate::run::command::EndWait;
use crate::run::error::Refusal;
use crate::run::event::{Event, FailureKind, RunError, SignalReceived, TokenId};
use crate::run::scope::TokenScope;
use crate::run::state::{KeptSignal, Live, Phase};
use crate::run::vars::size_of;
use crate::span::Span;

impl Decider<'_> {
    /// The time by which timers are armed: while the run is paused, or in a queue, they stand
    /// still.
    pub(super) fn clock(&self) -> DateTime<Utc> {
        self.live().and_then(Live::still_since).unwrap_or(self.now)
    }

    pub(super) fn after(&self, span: Span) -> DateTime<Utc> {
        self.clock() + span.as_duration()
    }

    /// The value of a node's own text or list at its token.
    pub(super) fn value_at(&self, id: TokenId, binding: &Binding) -> Result<Value, Box<RunError>> {
        let found = self.live().and_then(|live| Some((live, live.tokens.get(&id)?)));
        let Some((live, token)) = found else { return Ok(Value::Null) };
        evaluated(binding, &TokenScope::new(live, self.plan, token))
    }

    pub(super) fn enter_wait(&mut self, id: TokenId, wait: &PlanWait) {
        let due = match wait {
            PlanWait::For(binding) => self.value_at(id, binding).and_then(|value| span(&value)),
            PlanWait::Until(binding) => self.value_at(id, binding).and_then(|value| time(&value)),
            PlanWait::Signal { name, when, timeout } => {
                if let Some(number) = self.kept_signal(id, name, when.as_ref()) {
                    return self.take_signal(id, number);
                }
                let until = timeout.map(|timeout| self.after(timeout));
                let signal = Some(name.clone());
                return self.emit(Event::WaitStarted { token: id, until, signal });
            }
        };
        let key = if matches!(wait, PlanWait::For(_)) { "for" } else { "until" };
        match due {
            Err(error) => self.fail_node(id, *at("wait", key, error)),
            Ok(due) => {
                let until = match due {
                    Due::After(span) => self.after(span),
                    Due::At(time) => time,
                };
                if until <= self.clock() {
                    return self.end_wait(id, json!({"due": until}), None);
                }
                self.emit(Event::WaitStarted { token: id, until: Some(until), signal: None });
            }
        }
    }

    /// The time of a wait is up.
    pub(super) fn wait_is_up(&mut self, id: TokenId) {
        let Some(token) = self.token(id) else { return };
        match &token.phase {
            Phase::Waiting { until, signal: None } => {
                let result = json!({"due": until});
                self.end_wait(id, result, None);
            }
            Phase::Waiting { signal: Some(name), .. } => {
                let message = format!("no signal {name:?} came within the wait's timeout");
                let mut error = RunError::permanent("wait_timeout", message);
                error.kind = FailureKind::Timeout;
                self.fail_node(id, error);
            }
            Phase::Gated { .. } => self.time_out_gate(id),
            Phase::AwaitingChild { .. } => self.time_out_child(id),
            Phase::Working { .. }
            | Phase::BackingOff { .. }
            | Phase::Blocked { .. }
            | Phase::Succeeded { .. }
            | Phase::Failed { .. } => {}
        }
    }

    /// What a wait waited for is there. A mapping that fails over it fails the node; the signal
    /// is taken all the same.
    fn end_wait(&mut self, id: TokenId, result: Value, signal: Option<u64>) {
        let plan = self.plan;
        let Some(node) = self.token(id).and_then(|token| plan.node(&token.node)) else { return };
        let (writes, failed) = self.output(id, node, &result);
        self.emit(Event::WaitEnded { token: id, result, writes, signal });
        self.route_or_fail(id, failed);
    }

    /// Of a fork: what a wait or a gate came to in the other run.
    pub(super) fn end_wait_with(&mut self, end: &EndWait) -> Result<(), Refusal> {
        let id = end.token;
        let phase = self.token(id).map(|token| &token.phase);
        match (phase, &end.result, end.gate) {
            (Some(Phase::Waiting { .. }), Ok(result), None) => {
                self.end_wait(id, result.clone(), None);
            }
            (Some(Phase::Waiting { .. }), Err(error), None) => self.fail_node(id, error.clone()),
            (Some(Phase::Gated { .. }), result, Some(outcome)) => {
                self.close_gate(id, outcome, result.clone());
            }
            _ => return Err(Refusal::GateNotOpen { token: id }),
        }
        Ok(())
    }

    pub(super) fn signal(
        &mut self,
        name: &Name,
        payload: &Value,
        transient: bool,
    ) -> Result<(), Refusal> {
        let bytes = size_of(payload);
        if bytes > limits::SIGNAL_BYTES {
            return Err(Refusal::SignalTooLarge { bytes, limit: limits::SIGNAL_BYTES });
        }
        let mut payload = payload.clone();
        codec::normalise(&mut payload).map_err(Refusal::SignalNotStorable)?;
        let Some(live) = self.live() else { return Ok(()) };
        let signal = KeptSignal {
            name: Arc::from(name.as_str()),
            payload: Arc::new(payload),
            sent_at: self.now,
        };
        let taker = self.taker(&signal);
        let signals = &live.signals;
        let is_kept = taker.is_none() && !transient;
        if is_kept
            && (signals.kept.len() >= limits::SIGNALS
                || signals.bytes + bytes > limits::CONTEXT_BYTES)
        {
            return Err(Refusal::TooManySignals { kept: signals.kept.len() });
        }
        let number = signals.received + 1;
        self.emit(Event::SignalReceived(Box::new(SignalReceived {
            number,
            name: name.to_string(),
            payload: Arc::unwrap_or_clone(signal.payload),
            sent_at: self.now,
            dropped: taker.is_none() && transient,
        })));
        if let Some(token) = taker {
            self.take_signal(token, number);
        }
        Ok(())
    }

    fn take_signal(&mut self, id: TokenId, number: u64) {
        let kept = self.live().and_then(|live| live.signals.kept.get(&number));
        if let Some(result) = kept.map(KeptSignal::as_value) {
            self.end_wait(id, result, Some(number));
        }
    }

    /// The token that has waited longest for such a signal.
    fn taker(&self, signal: &KeptSignal) -> Option<TokenId> {
        let live = self.live()?;
        let is_for = |phase: &Phase| match phase {
            Phase::Waiting { signal: Some(name), .. } => *name == signal.name,
            _ => false,
        };
        let mut waiting: Vec<_> = live
            .tokens
            .iter()
            .filter(|(_, token)| is_for(&token.phase))
            .map(|(id, token)| (token.since, *id))
            .collect();
        waiting.sort_unstable();
        let value = signal.as_value();
        waiting.into_iter().map(|(_, id)| id).find(|id| {
            let node = live.tokens.get(id).and_then(|token| self.plan.node(&token.node));
            match node.map(|node| &node.work) {
                Some(NodeWork::Wait(PlanWait::Signal { when, .. })) => {
                    self.fits_wait(*id, when.as_ref(), &value)
                }
                _ => false,
            }
        })
    }

    /// The oldest kept signal that a wait would take.
    fn kept_signal(&self, id: TokenId, name: &str, when: Option<&Expression>) -> Option<u64> {
        let mut kept = self.live()?.signals.kept.iter().filter(|(_, one)| *one.name == *name);
        kept.find(|(_, one)| when.is_none() || self.fits_wait(id, when, &one.as_value()))
            .map(|(number, _)| *number)
    }

    /// Whether a signal is one that the wait is for. A condition that fails over a signal (which
    /// anybody may have sent) doesn't hold for it.
    fn fits_wait(&self, id: TokenId, when: Option<&Expression>, signal: &Value) -> bool {
        let Some(when) = when else { return true };
        let found = self.live().and_then(|live| Some((live, live.tokens.get(&id)?)));
        found.is_some_and(|(live, token)| {
            let scope =
                TokenScope { signal: Some(signal), ..TokenScope::new(live, self.plan, token) };
            when.holds(&scope).unwrap_or(false)
        })
    }
}

enum Due {
    After(Span),
    At(DateTime<Utc>),
}

fn span(value: &Value) -> Result<Due, Box<RunError>> {
    let Some(text) = value.as_str() else {
        let message = format!("{value} is not a duration: give a text such as 10m");
        return Err(boxed("type_mismatch", message));
    };
    let read = text.parse().map(Due::After);
    read.map_err(|error: crate::span::InvalidSpan| boxed("invalid_argument", error.to_string()))
}

fn time(value: &Value) -> Result<Due, Box<RunError>> {
    let read = value.as_str().and_then(|text| DateTime::parse_from_rfc3339(text).ok());
    read.map(|time| Due::At(time.to_utc())).ok_or_else(|| {
        let shown: String = value.to_string().chars().take(80).collect();
        let message = format!("{shown} is not a time: give one as 2026-01-31T12:00:00Z");
        boxed("invalid_argument", message)
    })
}
