//! Outcomes as they travel: in a message, or in a call where they are too large for one.

use bytes::Bytes;
use chassis::bus::Message;
use protocol::remote::shard_outcomes;
use protocol::shard_of;
use protocol::task::{Outcome, OutcomeResult};
use uuid::Uuid;

use super::held::Attempt;
use crate::fault::{Fault, permanent};

/// Bytes above which an outcome goes by a call.
const MESSAGE_BYTES: usize = 512 * 1024;
/// Bytes above which an outcome doesn't go at all.
const MOST_BYTES: usize = 15 * 1024 * 1024;

/// An outcome, encoded once, with an id that it keeps however often it is sent.
#[derive(Debug, Clone)]
pub(super) struct Parcel {
    pub(super) attempt: Attempt,
    id: String,
    body: Bytes,
}

impl Parcel {
    /// Encodes an outcome. One that is too large becomes a failure that says so.
    pub(super) fn of(outcome: Outcome) -> Self {
        let attempt = Attempt::from(&outcome);
        match serde_json::to_vec(&outcome) {
            Ok(body) if body.len() <= MOST_BYTES => Self::new(attempt, body),
            Ok(body) => {
                let mut failed = attempt.failed(*too_large(body.len()));
                failed.duration_ms = outcome.duration_ms;
                if let OutcomeResult::Failure(failure) = &mut failed.result {
                    failure.usage = match outcome.result {
                        OutcomeResult::Success(success) => success.usage,
                        OutcomeResult::Failure(failure) => failure.usage,
                    };
                }
                Self::failure(failed)
            }
            Err(error) => {
                let message = format!("the outcome has no json form: {error}");
                Self::failure(attempt.failed(*permanent("outcome_unwritable", message)))
            }
        }
    }

    /// What becomes of a parcel that nobody takes.
    pub(super) fn refused(&self) -> Self {
        Self::failure(self.attempt.failed(*too_large(self.body.len())))
    }

    fn failure(outcome: Outcome) -> Self {
        // Numbers and short texts always have a JSON form.
        Self::new(Attempt::from(&outcome), serde_json::to_vec(&outcome).unwrap_or_default())
    }

    fn new(attempt: Attempt, body: Vec<u8>) -> Self {
        let Attempt { run_id, token, attempt: number } = attempt;
        let id = format!("{run_id}/{token}/{number}/{}", Uuid::new_v4().simple());
        Self { attempt, id, body: body.into() }
    }

    pub(super) fn is_large(&self) -> bool {
        self.body.len() > MESSAGE_BYTES
    }

    pub(super) fn bytes(&self) -> usize {
        self.body.len()
    }

    pub(super) fn message(&self) -> Message {
        let subject = shard_outcomes(shard_of(self.attempt.run_id));
        Message { subject, id: self.id.clone(), body: self.body.clone() }
    }

    /// As a [`protocol::remote::CommandCall::Report`], without another round through serde.
    pub(super) fn call(&self) -> Bytes {
        [b"{\"report\":", &self.body[..], b"}"].concat().into()
    }
}

fn too_large(bytes: usize) -> Fault {
    let message = format!(
        "the outcome has {bytes} bytes as json, and may have {MOST_BYTES}: return less, or \
         a reference to it"
    );
    permanent("outcome_too_large", message)
}

#[cfg(test)]
mod tests {
    use domain::ids::RunId;
    use protocol::remote::CommandCall;
    use protocol::task::Success;
    use protocol::view::Usage;
    use serde_json::Value;

    use super::*;

    fn outcome(bytes: usize) -> Outcome {
        let result = Value::String("x".repeat(bytes));
        let usage = Usage { input_tokens: 7, ..Usage::default() };
        Outcome {
            run_id: RunId::derived("", "a run"),
            token: 3,
            attempt: 2,
            result: OutcomeResult::Success(Success { result, usage }),
            duration_ms: 12,
            secrets: vec!["MODEL_KEY".to_owned()],
        }
    }

    #[test]
    fn a_call_is_read_as_the_report_of_the_outcome() {
        let call = Parcel::of(outcome(10)).call();
        let call: CommandCall = serde_json::from_slice(&call).expect("a call");
        assert_eq!(call, CommandCall::Report(Box::new(outcome(10))));
    }

    #[test]
    fn the_same_outcome_has_another_id_each_time_it_was_come_to() {
        let (first, second) = (Parcel::of(outcome(1)), Parcel::of(outcome(1)));
        assert_eq!(first.message().id, first.clone().message().id);
        assert_ne!(first.message().id, second.message().id);
    }

    #[test]
    fn an_outcome_that_is_too_large_becomes_a_failure_with_what_it_used() {
        assert!(!Parcel::of(outcome(MESSAGE_BYTES - 1_024)).is_large());
        assert!(Parcel::of(outcome(MESSAGE_BYTES)).is_large());
        let message = Parcel::of(outcome(MOST_BYTES)).message();
        let told: Outcome = serde_json::from_slice(&message.body).expect("an outcome");
        let OutcomeResult::Failure(failure) = told.result else { panic!("it succeeded") };
        assert_eq!(failure.code, "outcome_too_large");
        assert_eq!((failure.usage.input_tokens, told.duration_ms), (7, 12));
    }
}
