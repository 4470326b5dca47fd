//! The model that needs no network and no key, as a profile of the default project.

use serde_json::{Value, json};

use crate::client::Client;
use crate::exit::Failure;

/// The profile's name, so that `model: mock` works.
pub(crate) const NAME: &str = "mock";
const PROJECT: &str = "default";

/// Makes the profile where it isn't there yet. False where somebody archived it: that holds. It is
/// looked for first, since the audit log tells of changes that fail.
pub(crate) async fn ensure(client: &Client) -> Result<bool, Failure> {
    if client.named("/model-profiles", PROJECT, NAME).await?.is_some() {
        return Ok(true);
    }
    let project = client.project_id(PROJECT).await?;
    let profile = json!({
        "project_id": project,
        "name": NAME,
        "description": "The built-in model: the same answer to the same request, and no network",
        "provider": "mock",
        "model": "mock",
    });
    match client.post("/model-profiles", &[], &profile).await {
        Ok(_) => Ok(true),
        Err(Failure::Api(problem)) if problem.code == "already_exists" => Ok(true),
        Err(Failure::Api(problem)) if problem.code == "name_archived" => Ok(false),
        Err(failure) => Err(failure),
    }
}

/// Makes the profile, and the project's default where none is set; answers the default's name.
pub(crate) async fn ensure_default(client: &Client) -> Result<Option<String>, Failure> {
    let is_there = ensure(client).await?;
    let project = client.project_id(PROJECT).await?;
    let path = format!("/projects/{project}");
    let view: Value = client.get(&path, &[]).await?.read()?;
    if let Some(model) = view["spec"]["default_model"].as_str() {
        return Ok(Some(model.to_owned()));
    }
    if !is_there {
        return Ok(None);
    }
    client.patch(&path, &json!({"default_model": NAME})).await?;
    Ok(Some(NAME.to_owned()))
}
