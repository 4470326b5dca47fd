//! Who a request is from, and whether that may use the route.

mod dev;
mod keys;
mod origin;

pub use keys::Secret;
pub(crate) use keys::{KeyCache, same};

use axum::http::{HeaderMap, StatusCode, header};
use domain::ids::WorkspaceId;
use domain::resource::Scope;
use protocol::Actor;

use crate::config::AuthConfig;
use crate::edge::Edge;
use crate::problem::Problem;
use crate::refusals::{Asked, Stranger, Unknown};
use crate::route::Verb;

/// Somebody who is signed in, in one workspace.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) actor: Actor,
    pub(crate) workspace_id: WorkspaceId,
    pub(crate) scopes: Vec<Scope>,
    /// Sees and makes workspaces beside its own; API keys never do.
    pub(crate) platform: bool,
}

impl Caller {
    /// Somebody with all scopes over all workspaces.
    fn everything(name: &str, workspace_id: WorkspaceId) -> Self {
        Self {
            actor: Actor(name.to_owned()),
            workspace_id,
            scopes: vec![Scope::Read, Scope::Run, Scope::Write, Scope::Admin],
            platform: true,
        }
    }

    pub(crate) fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope) || self.scopes.contains(&Scope::Admin)
    }

    /// Refuses a caller without a scope that only some requests of a route need.
    pub(crate) fn require(&self, scope: Scope, because: &str) -> Result<(), Problem> {
        if self.may(scope) {
            return Ok(());
        }
        let wanted = scope.as_str();
        let detail = format!("{because}: it needs an api key with the scope {wanted}");
        Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail))
    }
}

/// Signs a request in and checks the route's permission. `None` on public routes.
pub(crate) async fn admit(
    edge: &Edge,
    headers: &HeaderMap,
    asked: &Asked,
) -> Result<Option<Caller>, Problem> {
    let Asked { route, uri, .. } = asked;
    let dev = matches!(edge.gateway.config.auth, AuthConfig::Dev { .. });
    if dev {
        dev::guard(headers, uri)?;
    }
    if route.socket || dev && route.verb != Verb::Get {
        origin::guard(headers, uri)?;
    }
    let Some(scope) = route.permission.scope() else {
        return Ok(None);
    };
    let caller = identify(edge, headers).await;
    asked.is_by(&caller);
    let caller = caller?;
    caller.require(scope, "this is not for every caller")?;
    Ok(Some(caller))
}

/// Whose request it is. A key that is sent counts in dev mode too.
pub(crate) async fn identify(edge: &Edge, headers: &HeaderMap) -> Result<Caller, Unknown> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let text = value.to_str().unwrap_or_default();
        return keys::identify(edge, text).await;
    }
    match edge.gateway.config.auth {
        AuthConfig::Dev { workspace_id } => Ok(Caller::everything("dev", workspace_id)),
        AuthConfig::Keys { .. } => Err(Stranger::without("no_key").into()),
    }
}

/// One answer for every way not to be signed in, so that it tells nothing about keys.
impl From<Stranger> for Unknown {
    fn from(stranger: Stranger) -> Self {
        let detail = "send authorization: Bearer with a valid api key";
        let problem = Problem::new(StatusCode::UNAUTHORIZED, "unauthenticated", detail);
        Self { problem, stranger }
    }
}
