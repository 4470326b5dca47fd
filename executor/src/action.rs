//! The action kinds, one file each.

mod http;
mod llm;
mod mock;
mod transform;

use std::sync::Arc;

use domain::definition::ActionKind;
use protocol::EphemeralSink;
use protocol::task::{Work, WorkAction};
use serde_json::{Map, Value};

use crate::config::ExecutorConfig;
use crate::context::Context;
use crate::fault::{Ended, Fault, invalid, permanent};
use crate::web::Web;

/// What actions reach the world through.
pub(crate) struct Services {
    web: Web,
    keys: llm::Keys,
    llm_timeout: std::time::Duration,
    sink: Arc<dyn EphemeralSink>,
}

impl Services {
    pub(crate) fn new(
        config: &ExecutorConfig,
        sink: Arc<dyn EphemeralSink>,
    ) -> Result<Self, reqwest::Error> {
        Ok(Self {
            sink,
            web: Web::new(config.http.clone(), config.allow_private_hosts.clone())?,
            keys: llm::Keys::new(config),
            llm_timeout: config.llm_timeout,
        })
    }
}

/// An action, compiled.
pub(crate) enum Action {
    Transform(transform::Transform),
    Mock(mock::Mock),
    Http(Box<http::Http>),
    Llm(Box<llm::Llm>),
}

impl Action {
    pub(crate) fn compile(action: &WorkAction, work: &Work) -> Result<Self, Fault> {
        let with = &action.with;
        Ok(match action.kind {
            ActionKind::Transform => Self::Transform(transform::Transform::compile(with)?),
            ActionKind::Mock => Self::Mock(mock::Mock::compile(with)?),
            ActionKind::Http => Self::Http(Box::new(http::Http::compile(with)?)),
            ActionKind::Llm => Self::Llm(Box::new(llm::Llm::compile(with, work)?)),
            ActionKind::Mcp | ActionKind::Metric | ActionKind::Artifact => {
                let message = "this version has no worker for this kind of action";
                return Err(permanent("unsupported_action", message));
            }
        })
    }

    /// Whether [`Self::perform`] never waits for anything.
    pub(crate) fn is_immediate(&self) -> bool {
        match self {
            Self::Transform(_) => true,
            Self::Mock(mock) => mock.is_immediate(),
            Self::Http(_) | Self::Llm(_) => false,
        }
    }

    pub(crate) async fn perform(&self, context: &Context<'_>, services: &Services) -> Ended {
        match self {
            Self::Transform(transform) => transform.perform(context),
            Self::Mock(mock) => mock.perform(context).await,
            Self::Http(http) => Box::pin(http.perform(context, services)).await,
            Self::Llm(llm) => Box::pin(llm.perform(context, services)).await,
        }
    }
}

/// Refuses keys of `with` that the kind doesn't know.
fn only(with: &Map<String, Value>, known: &[&str]) -> Result<(), Fault> {
    match with.keys().find(|key| !known.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => {
            Err(invalid(&format!("with.{key}"), format!("unknown; known: {}", known.join(", "))))
        }
    }
}
