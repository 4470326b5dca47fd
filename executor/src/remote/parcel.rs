//! Outcomes as they travel: in calls to the owners of their shards, or as messages of a queue.

use std::collections::HashMap;

use bytes::Bytes;
use chassis::bus::Message;
use protocol::remote::shard_outcomes;
use protocol::shard_of;
use protocol::task::{Outcome, OutcomeResult};
use uuid::Uuid;

use super::held::Attempt;
use crate::fault::{Fault, permanent};

/// Bytes above which an outcome doesn't go into the queue, nor into a call with others.
const MESSAGE_BYTES: usize = 512 * 1024;
/// Outcomes in a call.
const TOGETHER: usize = 64;
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
        let subject = shard_outcomes(self.shard());
        Message { subject, id: self.id.clone(), body: self.body.clone() }
    }

    pub(super) fn shard(&self) -> u16 {
        shard_of(self.attempt.run_id)
    }

    /// Some as a [`protocol::remote::CommandCall::Report`], without another round through serde.
    pub(super) fn call(parcels: &[Self]) -> Bytes {
        let bytes: usize = parcels.iter().map(|parcel| parcel.bytes() + 1).sum();
        let mut call = Vec::with_capacity(bytes + 16);
        call.extend_from_slice(b"{\"report\":[");
        for (index, parcel) in parcels.iter().enumerate() {
            if index > 0 {
                call.push(b',');
            }
            call.extend_from_slice(&parcel.body);
        }
        call.extend_from_slice(b"]}");
        call.into()
    }
}

/// The parcels of each shard, as many together as go in one call.
pub(super) fn by_call(parcels: Vec<Parcel>) -> Vec<Vec<Parcel>> {
    let mut calls: Vec<Vec<Parcel>> = Vec::new();
    // The call of each shard that has room, with its bytes.
    let mut open: HashMap<u16, (usize, usize)> = HashMap::new();
    for parcel in parcels {
        let (shard, bytes) = (parcel.shard(), parcel.bytes());
        match open.get_mut(&shard) {
            Some((index, filled))
                if *filled + bytes <= MESSAGE_BYTES && calls[*index].len() < TOGETHER =>
            {
                *filled += bytes;
                calls[*index].push(parcel);
            }
            _ => {
                open.insert(shard, (calls.len(), bytes));
                calls.push(vec![parcel]);
            }
        }
    }
    calls
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
    fn a_call_is_read_as_the_report_of_its_outcomes() {
        for sizes in [vec![10], vec![10, 0, 20]] {
            let outcomes: Vec<Outcome> = sizes.into_iter().map(outcome).collect();
            let call = Parcel::call(&outcomes.iter().cloned().map(Parcel::of).collect::<Vec<_>>());
            let call: CommandCall = serde_json::from_slice(&call).expect("a call");
            assert_eq!(call, CommandCall::Report(outcomes));
        }
    }

    #[test]
    fn a_call_has_the_outcomes_of_one_shard_and_is_bounded() {
        let of_run = |name: &str, bytes| {
            Parcel::of(Outcome { run_id: RunId::derived("", name), ..outcome(bytes) })
        };
        let many = (0..200).flat_map(|_| ["a run", "another", "a third"].map(|run| of_run(run, 1)));
        let calls = by_call(many.collect());
        assert_eq!(calls.iter().map(Vec::len).sum::<usize>(), 600);
        for call in &calls {
            assert!(call.len() <= TOGETHER);
            assert!(call.iter().all(|parcel| parcel.shard() == call[0].shard()));
        }
        assert_eq!(calls.len(), 3 * 200_usize.div_ceil(TOGETHER));

        let large = by_call((0..5).map(|_| of_run("a run", MESSAGE_BYTES / 2 - 1_024)).collect());
        assert_eq!(large.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 1]);
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
