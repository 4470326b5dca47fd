//! Refusals that an audit asks about: who was refused what, from where. They are counted here and
//! told to the write side beside the requests, so that no answer waits for them and no number of
//! them fills the journal.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::OnceLock;

use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use chassis::coalesce::{Coalescer, Counted, Told};
use domain::access::{Crowd, Event, Refusal, Times};
use domain::ids::{ApiKeyId, CommandId, WorkspaceId};
use protocol::{Actor, Command, CommandEnvelope, Origin, RejectionKind};
use tokio_util::sync::CancellationToken;

use crate::auth::Caller;
use crate::config::Gateway;
use crate::connections::Peer;
use crate::problem::Problem;
use crate::route::{Permission, Route};
use crate::trace::Trace;

/// Refusals of a sort that are told apart in a minute: of callers who are signed in, and of all
/// others, so that these can't crowd out those.
const OF_CALLERS: usize = 32;
const OF_STRANGERS: usize = 8;
/// Bytes of an id in the path that are kept.
const TARGET_BYTES: usize = 80;
/// The codes that are about rights beside those of 401 and 403.
const OF_RIGHTS: &[&str] = &["run_held"];
/// Who nobody knows.
const UNKNOWN: &str = "unknown";

/// A request, as far as a record of its refusal tells of it.
pub(crate) struct Asked {
    pub(crate) route: &'static Route,
    /// Path and query.
    pub(crate) uri: Uri,
    address: Option<IpAddr>,
    user_agent: Option<HeaderValue>,
    traceparent: String,
    /// Set by whoever signs it in.
    by: OnceLock<Claim>,
}

/// Who a request is from, or says that it is.
#[derive(Debug, Clone)]
pub(crate) enum Claim {
    Caller(WorkspaceId, Actor),
    Stranger(Stranger),
}

/// Somebody who isn't signed in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Stranger {
    pub(crate) why: &'static str,
    /// The key that was named, and its workspace where there is such a key.
    pub(crate) key: Option<ApiKeyId>,
    pub(crate) workspace_id: Option<WorkspaceId>,
}

impl Stranger {
    /// Somebody who named no key.
    pub(crate) fn without(why: &'static str) -> Self {
        Self { why, ..Self::default() }
    }
}

impl Asked {
    pub(crate) fn of(route: &'static Route, parts: &Parts, trace: &Trace) -> Self {
        Self {
            route,
            uri: parts.uri.clone(),
            address: parts.extensions.get::<Peer>().map(|peer| peer.address),
            user_agent: parts.headers.get(header::USER_AGENT).cloned(),
            traceparent: trace.traceparent.clone(),
            by: OnceLock::new(),
        }
    }

    /// Says who it is from. Only the first word counts.
    pub(crate) fn is_by(&self, signed_in: &Result<Caller, Unknown>) {
        let claim = match signed_in {
            Ok(caller) => Claim::Caller(caller.workspace_id, caller.actor.clone()),
            Err(unknown) => Claim::Stranger(unknown.stranger.clone()),
        };
        let _ = self.by.set(claim);
    }

    fn origin(&self) -> Origin {
        Origin::new(self.address, self.user_agent.as_ref().and_then(|agent| agent.to_str().ok()))
    }
}

/// Why somebody isn't signed in: what is answered tells less than what is recorded.
#[derive(Debug)]
pub(crate) struct Unknown {
    pub(crate) problem: Problem,
    pub(crate) stranger: Stranger,
}

impl From<Unknown> for Problem {
    fn from(unknown: Unknown) -> Self {
        unknown.problem
    }
}

/// What refusals have in common that are counted as one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Alike {
    /// Nil where nobody knows.
    workspace_id: WorkspaceId,
    actor: String,
    key: Option<ApiKeyId>,
    address: Option<IpAddr>,
    code: Cow<'static, str>,
    reason: &'static str,
    method: &'static str,
    route: &'static str,
    target: Option<String>,
}

/// What is kept of the first one.
#[derive(Debug, Clone)]
struct First {
    origin: Origin,
    traceparent: String,
}

/// The refusals that aren't told yet. Each sort has places of its own, so that nobody hides what
/// they mayn't do behind what they do wrong.
pub(crate) struct Refusals {
    /// What somebody has no right to.
    of_rights: Crowds,
    /// Changes that were tried and failed.
    of_commands: Crowds,
}

struct Crowds {
    of_callers: Coalescer<Alike, First>,
    of_strangers: Coalescer<Alike, First>,
}

impl Crowds {
    const fn new() -> Self {
        Self { of_callers: Coalescer::new(OF_CALLERS), of_strangers: Coalescer::new(OF_STRANGERS) }
    }
}

impl Refusals {
    pub(crate) const fn new() -> Self {
        Self { of_rights: Crowds::new(), of_commands: Crowds::new() }
    }

    /// The sort that an answer is of. What was wrong with a read is told to nobody, as a read is.
    fn sort(&self, route: &Route, problem: &Problem) -> Option<&Crowds> {
        let is_about_rights =
            matches!(problem.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
                || OF_RIGHTS.contains(&&*problem.code);
        match () {
            () if is_about_rights => Some(&self.of_rights),
            () if route.is_command() && problem.status.is_client_error() => Some(&self.of_commands),
            () => None,
        }
    }

    /// Notes an answer, where it is a refusal of those that are told.
    pub(crate) fn note(&self, gateway: &Gateway, asked: &Asked, problem: &Problem) {
        let Some(crowds) = self.sort(asked.route, problem) else { return };
        let nobody = Stranger::default();
        let (workspace_id, actor, stranger) = match asked.by.get() {
            Some(Claim::Caller(workspace_id, actor)) => (Some(*workspace_id), &*actor.0, &nobody),
            Some(Claim::Stranger(stranger)) => (stranger.workspace_id, UNKNOWN, stranger),
            None => (None, UNKNOWN, &nobody),
        };
        let is_caller = matches!(asked.by.get(), Some(Claim::Caller(..)));
        // What strangers name may be anything, but for what is open to everybody.
        let names_it = is_caller || asked.route.permission == Permission::Public;
        let target = asked.route.segment(asked.uri.path(), "id");
        let target = Some(target).filter(|id| names_it && !id.is_empty());
        let alike = Alike {
            workspace_id: workspace_id.unwrap_or(WorkspaceId::new(uuid::Uuid::nil())),
            actor: actor.to_owned(),
            key: stranger.key,
            address: asked.address,
            code: problem.code.clone(),
            reason: stranger.why,
            method: asked.route.verb.as_str(),
            route: asked.route.path,
            target: target.map(|id| id.chars().take(TARGET_BYTES).collect()),
        };
        let of = if is_caller { &crowds.of_callers } else { &crowds.of_strangers };
        let first = || First { origin: asked.origin(), traceparent: asked.traceparent.clone() };
        of.note(alike, gateway.environment.now(), first);
    }

    /// Tells the write side until `stop`, and the rest then.
    pub(crate) async fn tell(&self, gateway: &Gateway, stop: CancellationToken) {
        let tell = async |noted: &Coalescer<Alike, First>, of| {
            let tell = |counted| told(gateway, envelope(gateway, counted, of));
            noted.tell(stop.clone(), tell).await;
        };
        let Self { of_rights, of_commands } = self;
        tokio::join!(
            tell(&of_rights.of_callers, Crowd::Refusals),
            tell(&of_rights.of_strangers, Crowd::RefusalsOfStrangers),
            tell(&of_commands.of_callers, Crowd::RefusedCommands),
            tell(&of_commands.of_strangers, Crowd::RefusedCommandsOfStrangers),
        );
    }
}

async fn told(gateway: &Gateway, envelope: CommandEnvelope) -> Told {
    match gateway.commands.execute(envelope).await {
        Ok(_) => Told::Done,
        Err(refused) => {
            tracing::warn!(%refused, "a refusal isn't recorded");
            match refused.kind {
                RejectionKind::Unavailable | RejectionKind::Overloaded => Told::Again,
                _ => Told::Done,
            }
        }
    }
}

fn envelope(gateway: &Gateway, counted: Counted<Alike, First>, of: Crowd) -> CommandEnvelope {
    let Counted { what, count, first_at, last_at } = counted;
    let times = Times { count, first_at, last_at };
    let nobody = WorkspaceId::new(uuid::Uuid::nil());
    let (workspace_id, actor, first, event) = match what {
        None => (nobody, UNKNOWN.to_owned(), None, Event::AccessesLeftOut { of, times }),
        Some((alike, first)) => {
            let refusal = Refusal {
                code: alike.code.into_owned(),
                reason: Some(alike.reason.to_owned()).filter(|reason| !reason.is_empty()),
                method: alike.method.to_owned(),
                route: alike.route.to_owned(),
                target: alike.target,
                key: alike.key.map(|key| key.to_string()),
                times,
            };
            let event = Event::AccessRefused(Box::new(refusal));
            (alike.workspace_id, alike.actor, Some(first), event)
        }
    };
    let (origin, traceparent) = first.map(|first| (first.origin, first.traceparent)).unzip();
    let (id, command) = (CommandId::new(gateway.environment.id()), Command::RecordAccess(event));
    CommandEnvelope {
        origin: origin.map(Box::new),
        traceparent,
        ..CommandEnvelope::new(id, workspace_id, &actor, command)
    }
}
