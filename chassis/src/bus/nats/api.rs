//! Requests to JetStream, and whether what it has is what was asked for.

use std::time::Duration;

use async_nats::StatusCode;
use async_nats::jetstream::response::Response;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::Instant;

use super::{Nats, NatsError, outbound};

const WITHIN: Duration = Duration::from_secs(5);
/// The stream is there with another configuration.
const STREAM_EXISTS: u64 = 10_058;

/// Why JetStream didn't do something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::bus) enum ApiError {
    #[error("{0}")]
    Unavailable(String),
    #[error("{description} ({code})")]
    Refused { code: u64, description: String },
}

impl ApiError {
    pub(in crate::bus) fn is(&self, wanted: u64) -> bool {
        matches!(self, Self::Refused { code, .. } if *code == wanted)
    }
}

impl From<ApiError> for NatsError {
    fn from(error: ApiError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl Nats {
    /// Asks JetStream's API. The subject stands below `$JS.API`.
    pub(in crate::bus) async fn api<T: DeserializeOwned>(
        &self,
        subject: &str,
        body: &Value,
    ) -> Result<T, ApiError> {
        let unavailable = |error: NatsError| ApiError::Unavailable(error.to_string());
        let until = Instant::now() + WITHIN;
        self.connected(until).await.map_err(unavailable)?;
        let answer = self.inbox().answer().map_err(|error| unavailable(error.unavailable()))?;
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let reply = Some(answer.subject.clone());
        let message = outbound(format!("$JS.API.{subject}"), reply, body.into());
        self.send(message).await.map_err(unavailable)?;
        let arrived = match tokio::time::timeout_at(until, answer.arrived()).await {
            Ok(Ok(arrived)) => arrived.first,
            Ok(Err(error)) => return Err(unavailable(error.unavailable())),
            Err(_) => return Err(ApiError::Unavailable("jetstream doesn't answer".into())),
        };
        if arrived.status == Some(StatusCode::NO_RESPONDERS) {
            return Err(ApiError::Unavailable("jetstream is off, or not ready yet".into()));
        }
        match serde_json::from_slice(&arrived.payload) {
            Ok(Response::Ok(answer)) => Ok(answer),
            Ok(Response::Err { error }) => Err(ApiError::Refused {
                code: error.error_code().0,
                description: error.to_string(),
            }),
            Err(error) => Err(ApiError::Unavailable(format!("an answer can't be read: {error}"))),
        }
    }

    /// Makes a stream, or gives the one that is there the settings asked for.
    pub(in crate::bus) async fn ensure_stream(&self, asked: &Value) -> Result<Value, NatsError> {
        let name = asked["name"].as_str().unwrap_or_default();
        let got: Value = match self.api(&format!("STREAM.CREATE.{name}"), asked).await {
            Err(error) if error.is(STREAM_EXISTS) => {
                let updated = self.api(&format!("STREAM.UPDATE.{name}"), asked).await;
                updated.map_err(|error| different(&format!("the stream {name}"), error))?
            }
            Err(error) => return Err(different(&format!("the stream {name}"), error)),
            Ok(got) => got,
        };
        same(&format!("the stream {name}"), asked, &got["config"])?;
        Ok(got)
    }

    /// Makes a durable consumer, or gives the one that is there the settings asked for.
    pub(in crate::bus) async fn ensure_consumer(
        &self,
        stream: &str,
        asked: &Value,
    ) -> Result<(), NatsError> {
        let name = asked["durable_name"].as_str().unwrap_or_default();
        let subject = format!("CONSUMER.DURABLE.CREATE.{stream}.{name}");
        let body = serde_json::json!({"stream_name": stream, "config": asked});
        let what = format!("the consumer {name} of {stream}");
        let got: Value = match self.api(&subject, &body).await {
            Ok(got) => got,
            Err(error) => return Err(different(&what, error)),
        };
        same(&what, asked, &got["config"])
    }
}

/// A refusal of settings. Where JetStream is not able to at the moment, it may be later.
fn different(what: &str, error: ApiError) -> NatsError {
    /// Consumer or stream missing, no resources, no leader, not ready: errors of the moment.
    const OF_THE_MOMENT: [u64; 9] =
        [10_002, 10_008, 10_009, 10_014, 10_023, 10_028, 10_039, 10_047, 10_059];
    match error {
        ApiError::Refused { code, description } if !OF_THE_MOMENT.contains(&code) => {
            NatsError::Different {
                what: what.into(),
                difference: format!(
                    "{description} ({code}); delete it, it is made anew and filled again, or ask \
                     for what is there"
                ),
            }
        }
        error => error.into(),
    }
}

/// Whether each setting asked for came back. Old servers ignore silently what they don't know.
fn same(what: &str, asked: &Value, got: &Value) -> Result<(), NatsError> {
    let asked = asked.as_object().into_iter().flatten();
    let differences: Vec<String> = asked
        .filter(|(field, asked)| {
            let got = &got[field.as_str()];
            **asked != *got && !(got.is_null() && is_nothing(asked))
        })
        .map(|(field, asked)| format!("{field} is {} instead of {asked}", got[field.as_str()]))
        .collect();
    if differences.is_empty() {
        return Ok(());
    }
    Err(NatsError::Different { what: what.into(), difference: differences.join(", ") })
}

/// What servers leave out.
fn is_nothing(value: &Value) -> bool {
    value.is_null() || value == false || value == 0 || value == ""
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_ignored_is_named() {
        let asked = json!({"name": "A", "max_bytes": 5, "no_ack": false, "subjects": ["a.>"]});
        assert_eq!(
            same("it", &asked, &json!({"name": "A", "max_bytes": 5, "subjects": ["a.>"]})),
            Ok(())
        );
        let got = json!({"name": "A", "max_bytes": -1, "more": true});
        let difference = "max_bytes is -1 instead of 5, subjects is null instead of [\"a.>\"]";
        let error = NatsError::Different { what: "it".into(), difference: difference.into() };
        assert_eq!(same("it", &asked, &got), Err(error));
    }
}
