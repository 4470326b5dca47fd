//! What a worker is allowed, and how much of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::guard::AllowedHost;

/// The settings of an [`crate::Executor`].
#[derive(Debug, Clone)]
pub struct ExecutorConfig {
    /// Tasks that may wait (for a network or a delay) at the same time; at least 1.
    pub concurrency: usize,
    /// How long running tasks may take to finish once a shutdown was asked for.
    pub grace: Duration,
    /// Kept compiled works; all are dropped when there are more.
    pub compiled_works: usize,
    pub http: HttpLimits,
    /// How long all model calls of an attempt may take where the attempt has no time-out.
    pub llm_timeout: Duration,
    /// Hosts that may be called although their addresses are private or loopback.
    pub allow_private_hosts: Vec<AllowedHost>,
    /// Names of variables that `api_key_env` may name. `*` at the start stands for any text. A
    /// model profile is written by users, and must not carry off the worker's other secrets.
    pub api_key_envs: Vec<String>,
    /// Where API keys are read from.
    pub environment: Environment,
}

impl Default for ExecutorConfig {
    fn default() -> Self {
        Self {
            concurrency: 1_024,
            grace: Duration::from_secs(20),
            compiled_works: 1_024,
            http: HttpLimits::default(),
            llm_timeout: Duration::from_secs(300),
            allow_private_hosts: Vec::new(),
            api_key_envs: vec!["*_API_KEY".to_owned()],
            environment: Environment::Process,
        }
    }
}

/// The limits of one HTTP exchange.
#[derive(Debug, Clone)]
pub struct HttpLimits {
    pub connect_timeout: Duration,
    /// From the first connect to the last byte, redirects included, where the attempt has no
    /// time-out of its own.
    pub total_timeout: Duration,
    /// Bytes of a response's body, after decompression.
    pub response_bytes: usize,
    /// Bytes of an answer that comes piece by piece, with all that is around its pieces.
    pub streamed_bytes: usize,
    /// How long such an answer may go without a byte.
    pub idle_timeout: Duration,
    /// Bytes of a request's body.
    pub request_bytes: usize,
    /// Headers of a request, and of a response.
    pub headers: usize,
    /// Bytes of all headers of a request, and of a response.
    pub header_bytes: usize,
    /// Redirects that are followed.
    pub redirects: usize,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            total_timeout: Duration::from_secs(60),
            response_bytes: 10 * 1024 * 1024,
            streamed_bytes: 32 * 1024 * 1024,
            idle_timeout: Duration::from_secs(120),
            request_bytes: 4 * 1024 * 1024,
            headers: 100,
            header_bytes: 64 * 1024,
            redirects: 5,
        }
    }
}

/// Where API keys are read from. Its `Debug` form shows no values.
#[derive(Clone, Default)]
pub enum Environment {
    /// The environment of this process.
    #[default]
    Process,
    /// These variables only.
    Fixed(Arc<BTreeMap<String, String>>),
}

impl Environment {
    /// The variable's value; an empty one counts as absent.
    pub(crate) fn read(&self, name: &str) -> Option<String> {
        match self {
            Self::Process => std::env::var(name).ok(),
            Self::Fixed(variables) => variables.get(name).cloned(),
        }
        .filter(|value| !value.is_empty())
    }
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Process => "Process",
            Self::Fixed(_) => "Fixed",
        })
    }
}
