//! Failed attempts: whether and when the next one starts.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::Decider;
use crate::definition::plan::PlanNode;
use crate::definition::{Backoff, Retry};
use crate::ids::RunId;
use crate::limits;
use crate::run::command::{AttemptError, Report};
use crate::run::error::Refusal;
use crate::run::event::{Event, RunError, TokenId, Usage};
use crate::run::state::Phase;
use crate::span::Span;

impl Decider<'_> {
    pub(super) fn fail_attempt(
        &mut self,
        node: &PlanNode,
        report: &Report,
        mut error: RunError,
        retry_after: Option<Span>,
    ) {
        error.node = Some(node.name.to_string());
        error.attempt = Some(report.attempt);
        let retry_at = node
            .retry
            .as_ref()
            .filter(|retry| error.kind.is_retryable() && report.attempt < retry.max_attempts)
            .and_then(|retry| self.retry_at(retry, report, retry_after));
        let Report { token, attempt, usage, duration_ms, adopted, .. } = *report;
        if self.token(token).is_some_and(|token| token.undo.is_some()) {
            return self.emit(Event::UndoFailed {
                token,
                attempt,
                error,
                retry_at,
                usage,
                duration_ms,
            });
        }
        self.emit(Event::TaskFailed {
            token,
            attempt,
            error,
            retry_at,
            usage,
            duration_ms,
            adopted,
        });
        if retry_at.is_none() {
            self.route(token);
        }
    }

    fn retry_at(
        &self,
        retry: &Retry,
        report: &Report,
        retry_after: Option<Span>,
    ) -> Option<DateTime<Utc>> {
        if report.adopted.is_some() {
            // Nobody was called, so nobody has to be spared.
            return Some(self.now);
        }
        let run_id = self.run.header()?.run_id;
        let delay_ms = delay_ms(retry, run_id, report.token, report.attempt)
            .max(retry_after.map_or(0, Span::as_millis));
        Some(self.after(Span::from_millis(delay_ms)))
    }

    /// Records that an attempt is handed to a worker, or ends it: where it must not be made twice,
    /// or has been handed out too often.
    pub(super) fn hand_out(&mut self, token: TokenId, attempt: u32) -> Result<(), Refusal> {
        let plan = self.plan;
        let stale = Refusal::StaleOutcome { token, attempt };
        let Some((at, current)) = self.run.working_attempt(token) else { return Err(stale) };
        let (times, node) = (at.handed_out, plan.work_of(at));
        let Some(node) = node.filter(|_| current == attempt) else { return Err(stale) };
        let (code, message) = if times > 0 && !node.repeatable {
            ("in_doubt", "the worker vanished, and the action may have been done".to_owned())
        } else if times >= limits::HAND_OUTS {
            ("worker_lost", format!("{times} workers vanished with this attempt"))
        } else {
            self.emit(Event::TaskHandedOut { token, attempt });
            self.decision.dispatch.push((token, attempt));
            return Ok(());
        };
        let error = RunError::permanent(code, message);
        let result = Err(AttemptError {
            code: code.to_owned(),
            message: error.message.clone(),
            kind: error.kind,
            detail: Value::Null,
            retry_after: None,
        });
        let (usage, duration_ms) = (Usage::default(), 0);
        let report = Report { token, attempt, result, usage, duration_ms, adopted: None };
        self.fail_attempt(node, &report, error, None);
        Ok(())
    }

    pub(super) fn retry(&mut self, id: TokenId) {
        let Some(Phase::BackingOff { attempt, .. }) = self.token(id).map(|token| &token.phase)
        else {
            return;
        };
        let attempt = *attempt;
        self.emit(Event::RetryStarted { token: id, attempt });
        self.fresh.push(id);
    }
}

/// The delay after a failed attempt. With jitter it lies between half of the full delay and all
/// of it ("equal jitter"), drawn from the run, the token and the attempt, so that deciding again
/// gives the same.
fn delay_ms(retry: &Retry, run_id: RunId, token: TokenId, attempt: u32) -> u64 {
    let initial = retry.initial.as_millis();
    let full = match retry.backoff {
        Backoff::Constant => initial,
        Backoff::Linear => initial.saturating_mul(u64::from(attempt)),
        Backoff::Exponential => {
            let factor = 1_u64.checked_shl(attempt - 1).unwrap_or(u64::MAX);
            initial.saturating_mul(factor)
        }
    }
    .min(retry.max.as_millis());
    if !retry.jitter || full < 2 {
        return full;
    }
    let bits = run_id.bits().as_u128();
    let seed = (bits as u64) ^ ((bits >> 64) as u64) ^ token.rotate_left(32) ^ u64::from(attempt);
    full - scramble(seed) % (full / 2 + 1)
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, 2014).
const fn scramble(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn retry(backoff: Backoff, jitter: bool) -> Retry {
        let (initial, max) = (Span::from_millis(100), Span::from_millis(1_000));
        Retry { max_attempts: 100, backoff, initial, max, jitter }
    }

    fn delays(retry: &Retry) -> Vec<u64> {
        let run = RunId::new(Uuid::from_u128(7));
        (1..=6).map(|attempt| delay_ms(retry, run, 3, attempt)).collect()
    }

    #[test]
    fn backoff_grows_to_its_limit() {
        assert_eq!(delays(&retry(Backoff::Constant, false)), [100; 6]);
        assert_eq!(delays(&retry(Backoff::Linear, false)), [100, 200, 300, 400, 500, 600]);
        assert_eq!(delays(&retry(Backoff::Exponential, false)), [100, 200, 400, 800, 1000, 1000]);
        let run = RunId::new(Uuid::from_u128(7));
        assert_eq!(delay_ms(&retry(Backoff::Exponential, false), run, 1, 100), 1000);
    }

    #[test]
    fn jitter_stays_between_half_and_all_and_is_drawn_again_alike() {
        let jittered = delays(&retry(Backoff::Exponential, true));
        let full = delays(&retry(Backoff::Exponential, false));
        for (delay, full) in jittered.iter().zip(&full) {
            assert!((full / 2..=*full).contains(delay), "{delay} of {full}");
        }
        assert_eq!(jittered, delays(&retry(Backoff::Exponential, true)));
        let other = RunId::new(Uuid::from_u128(8));
        assert_ne!(jittered[5], delay_ms(&retry(Backoff::Exponential, true), other, 3, 6));
    }
}
