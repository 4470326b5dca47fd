//! Answers of commands that were done: under which key they are kept, and as what.

use bytes::Bytes;
use chassis::journal::Recalled;
use protocol::command::{CommandEnvelope, Receipt};
use protocol::{Rejection, RejectionKind};

/// The key and the content of a command, as the journal's inbox keeps them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remembered {
    /// `<workspace>/<idempotency key>`, or `<workspace>/<command id>` where the client gave none.
    pub(crate) key: String,
    /// What was asked, as the edge hashed it.
    pub(crate) fingerprint: String,
}

impl Remembered {
    /// How a command is remembered.
    pub(crate) fn of(envelope: &CommandEnvelope) -> Self {
        let workspace = envelope.workspace_id;
        let key = match &envelope.idempotency_key {
            Some(key) => format!("{workspace}/{key}"),
            None => format!("{workspace}/{}", envelope.id),
        };
        Self { key, fingerprint: envelope.fingerprint.clone().unwrap_or_default() }
    }

    /// The answer that was given before. Refused where the key stands for something else.
    pub(crate) fn answer(&self, recalled: &Recalled) -> Result<Receipt, Rejection> {
        if recalled.fingerprint != self.fingerprint {
            return Err(Rejection::new(
                RejectionKind::Invalid,
                "idempotency_key_reused",
                "this idempotency key was used for another request; use a new key for each request",
            ));
        }
        let mut receipt: Receipt = serde_json::from_slice(&recalled.answer).map_err(|error| {
            tracing::error!(%error, "a remembered answer can't be read");
            Rejection::new(
                RejectionKind::Internal,
                "answer_damaged",
                "the command was done, but its answer can't be read; read the resource instead",
            )
        })?;
        receipt.position = recalled.position;
        if let Some(outcome) = &mut receipt.outcome {
            outcome.position = recalled.position;
        }
        Ok(receipt)
    }
}

/// A receipt as the inbox keeps it; its position is the append's.
pub(crate) fn encode(receipt: &Receipt) -> Bytes {
    // A receipt is numbers, texts and a time: it always has a JSON form.
    serde_json::to_vec(receipt).unwrap_or_default().into()
}
