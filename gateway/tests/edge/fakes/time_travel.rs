//! What the fake read side explains and compares: it answers with what it was asked.

use protocol::{DiffSide, DiffTo, Explain, Explanation, RunDiff, RunView, Usage};

use super::start_time;

pub(super) fn explanation(view: RunView, asked: &Explain) -> Explanation {
    Explanation {
        run_id: view.id,
        sequence: 3,
        status: view.status,
        why: format!("{asked:?}"),
        error: None,
        because: Vec::new(),
        waiting: Vec::new(),
        waiting_left_out: 0,
        tokens: Vec::new(),
        tokens_left_out: 0,
        ways: Vec::new(),
    }
}

pub(super) fn diff(view: RunView, to: &DiffTo) -> RunDiff {
    let side = DiffSide {
        run_id: view.id,
        sequence: 3,
        at: start_time(),
        status: view.status,
        definition: format!("{to:?}"),
        error: None,
        usage: Usage::default(),
    };
    RunDiff {
        left: side.clone(),
        right: side,
        parts: None,
        values: None,
        nodes: Vec::new(),
        changes: Vec::new(),
        changes_left_out: 0,
        events: Default::default(),
    }
}
