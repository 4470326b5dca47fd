//! Ephemeral messages of a stream, beside its events. They hold no event up: of those that came, no
//! more than a few are told before the next event, and only those of its run, so that pieces of an
//! answer stand before the event that has all of it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use domain::ids::{RunId, WorkspaceId};
use futures::FutureExt as _;
use futures::stream::{BoxStream, StreamExt as _};
use protocol::{Cursor, Ephemeral, EphemeralEnvelope, EphemeralFilter, RejectionKind, RunQueries};

use crate::call::Call;
use crate::problem::Problem;

/// Messages that wait for their turn; beyond them the oldest are lost.
const WAITING: usize = 64;
/// Messages that are looked at before an event.
const LOOKED_AT: usize = 256;

/// Runs of which is remembered whether they have the labels that a reader wants.
const REMEMBERED: usize = 1_024;

/// What a reader listens to.
pub(crate) struct Ephemerals {
    messages: BoxStream<'static, Ephemeral>,
    waiting: VecDeque<Ephemeral>,
    labelled: Option<Labelled>,
    /// The last event that the reader was told, or where its stream began.
    after: Cursor,
    /// Nothing is told before the reader has seen the event at this position.
    from: u64,
}

/// What a reader asked to listen to.
pub(crate) struct Listened {
    pub(crate) filter: EphemeralFilter,
    /// Labels that runs are to have.
    pub(crate) labels: Vec<(String, String)>,
    /// Where its stream begins.
    pub(crate) after: Option<Cursor>,
    /// See [`Ephemerals`]; an event that the stream will have.
    pub(crate) from: u64,
}

impl Ephemerals {
    pub(crate) async fn open(call: &Call, listened: Listened) -> Result<Self, Problem> {
        let gateway = &call.edge.gateway;
        let Listened { filter, labels, after, from } = listened;
        let after = match after {
            Some(after) => after,
            None => Cursor { position: 0, ..gateway.events.head().await? },
        };
        let labelled = (!labels.is_empty()).then(|| Labelled {
            runs: Arc::clone(&gateway.runs),
            workspace_id: filter.workspace_id,
            labels,
            known: HashMap::new(),
        });
        let messages = gateway.ephemerals.listen(filter).await?.fuse().boxed();
        Ok(Self { messages, waiting: VecDeque::new(), labelled, after, from })
    }

    /// A message as the reader is told it now.
    pub(crate) fn told(&self, message: Ephemeral) -> EphemeralEnvelope {
        EphemeralEnvelope::new(message, self.after)
    }

    /// The reader has seen an event.
    pub(crate) fn seen(&mut self, event: Cursor) {
        self.after = event;
    }

    fn is_due(&self) -> bool {
        self.after.position >= self.from
    }

    /// The next message. Cancel-safe; where there will be none, it never ends.
    pub(crate) async fn next(&mut self) -> Ephemeral {
        if !self.is_due() {
            return std::future::pending().await;
        }
        loop {
            // It stays here while its run is looked up.
            while let Some(message) = self.waiting.front() {
                let is_wanted = match &mut self.labelled {
                    Some(labelled) => labelled.has(message.run_id).await,
                    None => true,
                };
                if let (Some(message), true) = (self.waiting.pop_front(), is_wanted) {
                    return message;
                }
            }
            match self.messages.next().await {
                Some(message) => self.waiting.push_back(message),
                None => std::future::pending().await,
            }
        }
    }

    /// The messages of a run that have come.
    pub(crate) fn of_run(&mut self, run_id: &str) -> VecDeque<Ephemeral> {
        if !self.is_due() {
            return VecDeque::new();
        }
        for _ in 0..LOOKED_AT {
            // What is there is taken, however much was done in this turn.
            let next = tokio::task::unconstrained(self.messages.next()).now_or_never();
            let Some(Some(message)) = next else { break };
            if self.labelled.as_ref().is_some_and(|labelled| labelled.lacks(message.run_id)) {
                continue;
            }
            if self.waiting.len() == WAITING {
                self.waiting.pop_front();
            }
            self.waiting.push_back(message);
        }
        if self.waiting.is_empty() {
            return VecDeque::new();
        }
        let is_of_it = |message: &Ephemeral| message.run_id.to_string() == run_id;
        let (of_it, others) = std::mem::take(&mut self.waiting).into_iter().partition(is_of_it);
        self.waiting = others;
        of_it
    }
}

/// Whether runs have the labels that a reader wants.
struct Labelled {
    runs: Arc<dyn RunQueries>,
    workspace_id: WorkspaceId,
    labels: Vec<(String, String)>,
    known: HashMap<RunId, bool>,
}

impl Labelled {
    /// Whether it is known that a run hasn't.
    fn lacks(&self, run_id: RunId) -> bool {
        self.known.get(&run_id) == Some(&false)
    }

    /// Cancel-safe. No of a run that the read model doesn't know yet: what is told of it then is
    /// lost, as what is told before anybody listens.
    async fn has(&mut self, run_id: RunId) -> bool {
        if let Some(known) = self.known.get(&run_id) {
            return *known;
        }
        let has = match self.runs.get(self.workspace_id, run_id, None).await {
            Ok(view) => self.labels.iter().all(|(key, value)| view.labels.get(key) == Some(value)),
            Err(error) => {
                if error.kind != RejectionKind::NotFound {
                    tracing::debug!(%run_id, %error, "can't tell whether a run has labels");
                }
                return false;
            }
        };
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        self.known.insert(run_id, has);
        has
    }
}
