//! Webhooks: whose they are is checked over the bytes that came, before anything reads them.

use domain::ids::{Name, WorkflowId, WorkspaceId};
use domain::resource::{Kind, Spec};
use domain::run::event::TriggeredBy;
use domain::trigger::webhook::{Secret, Signed};
use domain::trigger::{CompiledTrigger, Source, TriggerKind, TriggerRef, WebhookSpec};
use protocol::{CommandEnvelope, Receipt, Rejection, RejectionKind, Webhook};
use serde_json::{Map, Value, json};

use super::Triggers;
use super::secrets::Alike;
use super::start::{Starting, failure, may_pass};
use crate::coordinator::unavailable;

/// A workflow's trigger by webhook, as it is now.
struct Found {
    workspace_id: WorkspaceId,
    compiled: CompiledTrigger,
    /// Whether trigger and workflow are in use.
    is_enabled: bool,
}

impl Triggers {
    /// Starts the run of a webhook, or answers for the one that an earlier delivery started.
    ///
    /// # Errors
    /// `not_found`, `invalid_signature`, `trigger_disabled`, `invalid_json`, and those of a start.
    pub(crate) async fn deliver(
        &self,
        envelope: &CommandEnvelope,
        webhook: &Webhook,
    ) -> Result<Receipt, Rejection> {
        self.resolver.catch_up().await?;
        let (workflow_id, name) = (webhook.workflow_id, &webhook.trigger);
        let found = self.webhook_trigger(workflow_id, name).await?;
        let Some(Source::Webhook(spec)) = found.compiled.spec.source() else {
            return Err(no_such_trigger(name));
        };
        let now = self.clock.now();
        let signed = Signed {
            id: &webhook.id,
            timestamp: &webhook.timestamp,
            signature: &webhook.signature,
        };
        let (names, secrets) = secrets(spec, workflow_id, name)?;
        let workspace_id = found.workspace_id;
        let trigger = name.clone();
        self.note_secrets(Alike { workspace_id, workflow_id, trigger, names });
        if !signed.holds(&secrets, webhook.body.as_bytes(), now) {
            metrics::counter!("wonder_webhooks_refused_total").increment(1);
            return Err(Rejection::new(
                RejectionKind::Unauthenticated,
                "invalid_signature",
                "sign id, time and body with a secret of the trigger, and send it within 5 minutes",
            ));
        }
        let by = TriggeredBy {
            workflow_id,
            name: name.clone(),
            kind: TriggerKind::Webhook,
            at: now,
            key: webhook.id.clone(),
            depth: 0,
        };
        match self.accept(envelope, webhook, &found, spec, by).await {
            Err(refused) if !may_pass(&refused) && found.is_enabled => {
                let trigger = TriggerRef { workflow_id, name: name.clone() };
                let failed = failure(trigger, webhook.id.clone(), now, &refused, None);
                // What can't be recorded is told to the sender all the same.
                if let Err(error) = self.record_told(found.workspace_id, failed).await {
                    tracing::warn!(%workflow_id, %error, "a webhook's failure can't be recorded");
                }
                Err(refused)
            }
            done => done,
        }
    }

    async fn accept(
        &self,
        envelope: &CommandEnvelope,
        webhook: &Webhook,
        found: &Found,
        spec: &WebhookSpec,
        by: TriggeredBy,
    ) -> Result<Receipt, Rejection> {
        let run_id = webhook.run_id();
        if !found.is_enabled {
            let message =
                format!("the trigger {} is disabled; enable it and its workflow", by.name);
            let disabled = Rejection::new(RejectionKind::NotFound, "trigger_disabled", message);
            return self.started(run_id).await?.ok_or(disabled);
        }
        let body: Value = match serde_json::from_str(&webhook.body) {
            Ok(body) => body,
            Err(error) => {
                let message = format!("the body must be json: {error}");
                let refused = Rejection::new(RejectionKind::Malformed, "invalid_json", message);
                return Err(refused);
            }
        };
        let mut headers = Map::new();
        for name in &spec.headers {
            if let Some(value) = webhook.headers.get(name) {
                headers.insert(name.clone(), value.clone().into());
            }
        }
        let mut more = Map::new();
        more.insert("body".to_owned(), body);
        more.insert("headers".to_owned(), json!(headers));
        let Found { workspace_id, compiled: trigger, .. } = found;
        let workspace_id = *workspace_id;
        let along = envelope.into();
        self.start(Starting { workspace_id, run_id, trigger, by, more, along }).await
    }

    async fn webhook_trigger(
        &self,
        workflow_id: WorkflowId,
        name: &Name,
    ) -> Result<Found, Rejection> {
        let missing = || no_such_trigger(name);
        let head = self.heads.head(Kind::Workflow, &workflow_id.to_string()).await?;
        let head = head.filter(|head| !head.resource.is_archived()).ok_or_else(missing)?;
        let Some(Spec::Workflow(workflow)) = head.resource.spec() else { return Err(missing()) };
        let spec = workflow.triggers.get(name).ok_or_else(missing)?;
        let compiled = CompiledTrigger::compile(spec).map_err(|_| missing())?;
        if compiled.kind != TriggerKind::Webhook {
            return Err(missing());
        }
        let workspace_id = head.workspace_id.parse().map_err(|_| missing())?;
        Ok(Found { workspace_id, compiled, is_enabled: spec.enabled && workflow.enabled })
    }
}

fn no_such_trigger(name: &Name) -> Rejection {
    let message = format!("there is no webhook {name} here");
    Rejection::new(RejectionKind::NotFound, "not_found", message)
}

/// The secrets of a trigger that this process has, after the names of their variables.
fn secrets(
    spec: &WebhookSpec,
    workflow_id: WorkflowId,
    name: &Name,
) -> Result<(Vec<String>, Vec<Secret>), Rejection> {
    let read = |variable: &String| {
        Some((variable.clone(), Secret::parse(&std::env::var(variable).ok()?)?))
    };
    let (names, secrets): (Vec<_>, Vec<_>) = spec.secret_envs.iter().filter_map(read).unzip();
    if secrets.is_empty() {
        let variables = spec.secret_envs.join(", ");
        tracing::error!(
            %workflow_id, %name, variables,
            "no variable of a webhook holds a secret of the form whsec_ and base64"
        );
        return Err(unavailable("the webhook has no secret at the moment, try again later"));
    }
    Ok((names, secrets))
}
