//! The children that a run waits for where it is forked: they fork with it, as do theirs.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use domain::ids::RunId;
use domain::limits;
use domain::run::event::{Adopt, ForkedChild, ParentRun, TokenId};
use domain::run::fork::{Asked, Trial};
use protocol::{ForkPlan, Rejection, RejectionKind};

use super::unforkable;
use crate::coordinator::{History, Moment, Sources, child_at, of_command};
use crate::service::internal;

/// What the children of a fork are looked up with.
pub(super) struct Cut<'a> {
    pub sources: Sources<'a>,
    /// The moment of the fork, for all of them.
    pub moment: Moment,
    pub adopt: Adopt,
    pub now: DateTime<Utc>,
}

/// Children of a run that it waits for, by their tokens.
pub(super) type Awaited = BTreeMap<TokenId, RunId>;

impl Cut<'_> {
    /// The children that a tried fork would start while its run waited for them. `plan` is told what
    /// forks of them would do.
    pub(super) async fn children(
        &self,
        trial: &Trial,
        awaited: &Awaited,
        plan: &mut ForkPlan,
    ) -> Result<Vec<ForkedChild>, Rejection> {
        let header = trial.run.header().ok_or_else(|| internal("a run without a beginning"))?;
        let mut children = Vec::new();
        for (token, own) in &trial.children {
            let Some(from) = awaited.get(token).copied() else { continue };
            let parent = header.parent_of_child(*token);
            let child = Box::pin(self.child(from, *own, parent, plan)).await;
            let child = child.map_err(|refused| of_child(from, *token, &refused))?;
            children.extend(child);
        }
        Ok(children)
    }

    /// A child as it forks with its parent; absent where it is started anew.
    async fn child(
        &self,
        from: RunId,
        own: RunId,
        parent: ParentRun,
        plan: &mut ForkPlan,
    ) -> Result<Option<ForkedChild>, Rejection> {
        let found = child_at(self.sources, from, self.moment, self.adopt).await;
        let found = match found {
            Ok(found) => found,
            Err(error) => return Err(error.refusal(from)),
        };
        let Some(History { events: sequence, last, place: Some(place), plan: own_plan, .. }) =
            found
        else {
            return Ok(None);
        };
        plan.children += 1;
        if plan.children > limits::FORK_CHILDREN as u64 {
            let message = format!("at most {} children fork with a run", limits::FORK_CHILDREN);
            return Err(Rejection::new(RejectionKind::Conflict, "fork_too_long", message));
        }
        let awaited = place.run.live().map(|live| live.children.clone()).unwrap_or_default();
        let token = parent.token;
        let asked = Asked {
            adopt: self.adopt,
            parent: Some(parent),
            ..Asked::unchanged(own, from, last, self.now)
        };
        let forking = place.fork(asked).map_err(|error| unforkable(&error))?;
        let trial = forking.tried(&own_plan.plan, self.now, &mut |_| ());
        let trial = trial.map_err(|refusal| of_command(&refusal))?;
        plan.join(ForkPlan::of(from, forking.forked.sequence, &trial));
        let children = self.children(&trial, &awaited, plan).await?;
        Ok(Some(ForkedChild { token, run_id: from, sequence, children }))
    }
}

/// Why a run can't be forked: a child of it can't.
fn of_child(child: RunId, token: TokenId, refused: &Rejection) -> Rejection {
    if !matches!(refused.kind, RejectionKind::Conflict | RejectionKind::Invalid) {
        return refused.clone();
    }
    let message = format!(
        "token {token} waits there for {child}, which can't fork with it: {}. Fork before the \
         child was started, or after it has ended",
        refused.message
    );
    Rejection::new(RejectionKind::Conflict, "fork_child_live", message).at("/at")
}
