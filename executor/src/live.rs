//! What an attempt tells while a model is answering it: pieces of the answer, put together so that
//! they cost little however small the pieces are that come.

use std::time::Duration;

use protocol::ephemeral::DELTA_BYTES;
use protocol::{Ephemeral, EphemeralSink, LlmDelta};
use tokio::time::Instant;

use crate::context::Context;
use crate::fault::excerpt;

/// Nothing is told more often than this, but what fills a message.
const EVERY: Duration = Duration::from_millis(50);

/// The pieces of one action's answers.
pub(crate) struct Live<'a> {
    sink: &'a dyn EphemeralSink,
    context: Context<'a>,
    answer: u32,
    index: u64,
    /// Something of this answer has come.
    has_begun: bool,
    /// What came and wasn't told yet.
    pending: String,
    /// When it may be told.
    due: Instant,
}

impl<'a> Live<'a> {
    pub(crate) fn new(context: Context<'a>, sink: &'a dyn EphemeralSink) -> Self {
        let (answer, index, pending) = (0, 0, String::new());
        Self { sink, context, answer, index, has_begun: false, pending, due: Instant::now() }
    }

    /// Another answer begins.
    pub(crate) fn begin(&mut self) {
        self.flush();
        self.answer += 1;
        self.has_begun = false;
    }

    /// More of the answer has come.
    pub(crate) fn add(&mut self, text: &str) {
        self.has_begun = true;
        self.pending.push_str(text);
        if self.pending.len() >= DELTA_BYTES || self.due <= Instant::now() {
            self.flush();
        }
    }

    /// The answer is this.
    pub(crate) fn end(&mut self, text: &str) {
        if !self.has_begun {
            self.add(text);
        }
        self.flush();
    }

    /// When what came has to be told, where there is something.
    pub(crate) fn due(&self) -> Option<Instant> {
        (!self.pending.is_empty()).then_some(self.due)
    }

    /// Tells what came.
    pub(crate) fn flush(&mut self) {
        let mut rest = std::mem::take(&mut self.pending);
        while !rest.is_empty() {
            let text = excerpt(&rest, DELTA_BYTES).to_owned();
            rest.drain(..text.len());
            // Counted even if nobody listens: who comes later sees that something is missing.
            if self.sink.is_heard() {
                self.sink.tell(self.message(text));
            }
            self.index += 1;
            self.due = Instant::now() + EVERY;
        }
    }

    fn message(&self, text: String) -> Ephemeral {
        let (task, step) = (self.context.task, self.context.step);
        Ephemeral {
            workspace_id: task.workspace_id,
            project_id: task.project_id,
            workflow_id: task.workflow_id,
            run_id: task.run_id,
            told_at: chrono::Utc::now(),
            delta: LlmDelta {
                node: task.node.clone(),
                step: step.map(str::to_owned),
                token: task.token,
                attempt: task.attempt,
                answer: self.answer,
                index: self.index,
                text,
            },
        }
    }
}
