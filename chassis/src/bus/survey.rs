//! Questions to everybody on a subject: whoever has something to say answers.

use std::time::Duration;

use async_nats::StatusCode;
use bytes::Bytes;
use futures::StreamExt;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::nats::{Nats, NatsError, outbound};

/// Answers to one question that may wait to be read.
const ANSWERS: usize = 1_024;

impl Nats {
    /// Asks everybody who answers on a subject below the prefix, and gives each answer to `take`,
    /// until that says that it has heard enough, or the time is over. At once where nobody listens.
    ///
    /// Who says nothing is away, slow, or has nothing to say: that can't be told apart. Neither the
    /// question nor an answer may be larger than a message of the server.
    ///
    /// # Errors
    /// Where the question can't be asked.
    pub async fn survey(
        &self,
        subject: &str,
        question: Bytes,
        within: Duration,
        mut take: impl FnMut(Bytes) -> bool,
    ) -> Result<(), NatsError> {
        let until = Instant::now() + within;
        self.connected(until).await?;
        let mut answers = self.inbox().follow(ANSWERS).map_err(|error| error.unavailable())?;
        let reply = Some(answers.subject.clone());
        self.send(outbound(self.subject(subject), reply, question)).await?;
        while let Ok(Some(answer)) = tokio::time::timeout_at(until, answers.next()).await {
            if answer.status == Some(StatusCode::NO_RESPONDERS) || take(answer.payload) {
                break;
            }
        }
        Ok(())
    }

    /// Answers such questions until what is returned is dropped; nothing is said where there is
    /// nothing to say. Lasts over reconnects.
    ///
    /// # Errors
    /// Where NATS is away.
    pub async fn answer_surveys(
        &self,
        subject: &str,
        answer: impl Fn(Bytes) -> Option<Bytes> + Send + 'static,
    ) -> Result<DropGuard, NatsError> {
        let mut questions = self.subscribe(subject).await?;
        let (nats, ends) = (self.clone(), CancellationToken::new());
        let ended = ends.clone();
        tokio::spawn(ended.run_until_cancelled_owned(async move {
            while let Some(question) = questions.next().await {
                if let (Some(reply), Some(body)) = (question.reply, answer(question.payload)) {
                    let answer = outbound(reply.to_string(), None, body);
                    if let Err(error) = nats.send(answer).await {
                        tracing::debug!(%error, "a question is left without an answer");
                    }
                }
            }
        }));
        Ok(ends.drop_guard())
    }
}
