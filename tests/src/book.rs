//! What clients were told, as `wonder audit verify --against` reads it.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use crate::client::Answer;

/// A log that clients share.
#[derive(Debug, Clone, Default)]
pub struct Book {
    lines: Arc<Mutex<Vec<Value>>>,
}

impl Book {
    /// A run was started, or a refusal of that was answered, under a key and with labels that no
    /// other run has.
    ///
    /// # Panics
    /// When the answer is neither.
    pub fn started(&self, key: &str, labels: &Value, answer: &Answer) {
        self.command("start", key, labels, answer);
    }

    /// A run was cancelled, or a refusal of that was answered.
    ///
    /// # Panics
    /// When the answer is neither.
    pub fn cancelled(&self, key: &str, answer: &Answer) {
        self.command("cancel", key, &json!({}), answer);
    }

    /// A run was seen to have ended.
    pub fn ended(&self, view: &Value) {
        let (run_id, status, output) = (&view["id"], &view["status"], &view["output"]);
        self.write(json!({"op": "ended", "run_id": run_id, "status": status, "output": output}));
    }

    fn command(&self, op: &str, key: &str, labels: &Value, answer: &Answer) {
        let status = answer.status;
        match status {
            200..=299 => self.write(json!({
                "op": op, "key": key, "run_id": answer.body["id"], "labels": labels,
                "position": answer.body["position"], "status": status
            })),
            400..=499 => self.write(json!({"op": "refused", "key": key, "status": status})),
            _ => panic!("{op} under {key} was answered {status}: {}", answer.text),
        }
    }

    fn write(&self, line: Value) {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    /// How many lines have an `op`.
    pub fn count(&self, op: &str) -> usize {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().filter(|line| line["op"] == op).count()
    }

    /// All of it, one JSON object a line.
    pub fn to_lines(&self) -> String {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().map(|line| format!("{line}\n")).collect()
    }
}
