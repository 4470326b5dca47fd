//! `mock`: answers `with.result` after `with.delay`, or fails the first `with.fail.times`
//! attempts of a token.

use domain::span::Span;
use protocol::task::{FailureKind, Success};
use protocol::view::Usage;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::only;
use crate::context::{Bound, Context};
use crate::fault::{Ended, Fault, fault, invalid};

pub(crate) struct Mock {
    result: Bound,
    delay: Option<Delay>,
    fail: Option<Fail>,
}

enum Delay {
    Fixed(Span),
    Bound(Bound),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fail {
    times: u32,
    #[serde(default = "Fail::default_kind")]
    kind: FailureKind,
    #[serde(default = "Fail::default_code")]
    code: String,
    #[serde(default = "Fail::default_message")]
    message: String,
}

impl Fail {
    fn default_kind() -> FailureKind {
        FailureKind::Transient
    }
    fn default_code() -> String {
        "mock_failure".to_owned()
    }
    fn default_message() -> String {
        "the mock fails this attempt, as it was told".to_owned()
    }
}

impl Mock {
    pub(crate) fn compile(with: &Map<String, Value>) -> Result<Self, Fault> {
        only(with, &["result", "delay", "fail"])?;
        let delay = match with.get("delay") {
            None => None,
            Some(Value::String(text)) if !text.contains("${") => {
                Some(Delay::Fixed(span(text)?)).filter(|delay| !delay.is_zero())
            }
            Some(value) => Some(Delay::Bound(Bound::compile("with.delay", value)?)),
        };
        let fail = with.get("fail").map(|fail| {
            serde_json::from_value(fail.clone()).map_err(|error| invalid("with.fail", error))
        });
        Ok(Self {
            result: Bound::compile("with.result", with.get("result").unwrap_or(&Value::Null))?,
            delay,
            fail: fail.transpose()?,
        })
    }

    pub(crate) fn is_immediate(&self) -> bool {
        self.delay.is_none()
    }

    pub(crate) async fn perform(&self, context: &Context<'_>) -> Ended {
        if let Some(delay) = &self.delay {
            let span = match delay {
                Delay::Fixed(span) => *span,
                Delay::Bound(bound) => span(&bound.text(context)?)?,
            };
            tokio::time::sleep(span.as_duration()).await;
        }
        match &self.fail {
            Some(fail) if context.task.attempt <= fail.times => {
                Err(fault(fail.kind, &fail.code, &fail.message))
            }
            _ => Ok(Success { result: self.result.eval(context)?, usage: Usage::default() }),
        }
    }
}

impl Delay {
    fn is_zero(&self) -> bool {
        matches!(self, Self::Fixed(span) if span.as_millis() == 0)
    }
}

fn span(text: &str) -> Result<Span, Fault> {
    text.parse().map_err(|error| invalid("with.delay", error))
}
