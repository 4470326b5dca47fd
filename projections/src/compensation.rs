//! How far a run has undone its work: of its row, and of its folded state.

use domain::run::event::Compensation;
use protocol::view::{CompensationView, UndoFailureView};

pub(crate) fn view(cause: &str, record: &Compensation) -> CompensationView {
    let failures = record.failures.iter().map(|failure| UndoFailureView {
        node: failure.node.clone(),
        undoes: failure.undoes,
        token: failure.token,
        code: failure.code.clone(),
        message: failure.message.clone(),
    });
    CompensationView {
        cause: cause.to_owned(),
        total: record.total,
        undone: record.undone,
        failed: record.failed,
        remaining: record.remaining(),
        failures: failures.collect(),
    }
}
