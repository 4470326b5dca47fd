//! How a run ended, as those see it who waited for it.

use domain::run::Run;
use protocol::RunOutcome;
use protocol::view::RunError;

/// The end of a closed run, whose last event has this sequence and position.
pub(super) fn of(run: &Run, sequence: u64, position: u64) -> Option<RunOutcome> {
    let Run::Closed(closed) = run else { return None };
    Some(RunOutcome {
        status: closed.status,
        output: closed.output.as_deref().cloned(),
        error: closed.failure().as_ref().map(RunError::from),
        usage: closed.usage,
        sequence,
        position,
        ended_at: closed.ended_at,
    })
}

/// Whether an end is small enough to be kept for those who ask again.
pub(super) fn is_small(outcome: &RunOutcome) -> bool {
    let bytes = outcome.output.as_ref().map_or(0, domain::run::vars::size_of);
    bytes <= domain::limits::INLINE_VALUE_BYTES
}
