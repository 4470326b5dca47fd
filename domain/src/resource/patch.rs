//! JSON merge patches (RFC 7386) over a spec.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::definition::problem::escaped;
use crate::limits;
use crate::resource::{Error, Spec};

/// The spec after a patch: whole, but not yet validated. Members that make the identity of a
/// resource can't change.
pub(crate) fn revised(current: &Spec, patch: &Value) -> Result<Spec, Error> {
    let Value::Object(patch) = patch else {
        return Err(Error::invalid("", "a patch must be an object with the members to change"));
    };
    if !is_shallower_than(patch, limits::JSON_DEPTH) {
        return Err(Error::invalid(
            "",
            format!("a patch nests at most {} deep", limits::JSON_DEPTH),
        ));
    }
    let spec = match current {
        Spec::Workspace(spec) => Spec::Workspace(laid_over(spec, patch)?),
        Spec::Project(spec) => Spec::Project(laid_over(spec, patch)?),
        Spec::WorkflowDefinition(spec) => Spec::WorkflowDefinition(laid_over(spec, patch)?),
        Spec::Workflow(spec) => Spec::Workflow(laid_over(spec, patch)?),
        Spec::Action(spec) => Spec::Action(laid_over(spec, patch)?),
        Spec::PromptSpec(spec) => Spec::PromptSpec(laid_over(spec, patch)?),
        Spec::ModelProfile(spec) => Spec::ModelProfile(laid_over(spec, patch)?),
        Spec::ApiKey(spec) => Spec::ApiKey(laid_over(spec, patch)?),
    };
    keeps_identity(current, &spec)?;
    Ok(spec)
}

/// Merges a patch into a value as RFC 7386 says: objects member by member, `null` removes,
/// everything else replaces.
pub(crate) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(members) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    if let Value::Object(object) = target {
        merge_members(object, members);
    }
}

fn merge_members(object: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (key, value) in patch {
        if value.is_null() {
            object.remove(key);
        } else {
            merge(object.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

fn laid_over<T>(spec: &T, patch: &Map<String, Value>) -> Result<T, Error>
where
    T: Serialize + DeserializeOwned,
{
    let before = match serde_json::to_value(spec) {
        Ok(Value::Object(members)) => members,
        Ok(_) => Map::new(),
        Err(error) => return Err(Error::invalid("", error.to_string())),
    };
    let mut after = before.clone();
    merge_members(&mut after, patch);
    serde_json::from_value(Value::Object(after)).map_err(|error| {
        Error::invalid(culprit::<T>(&before, patch).unwrap_or_default(), error.to_string())
    })
}

/// The first member of the patch that makes the spec unreadable on its own.
fn culprit<T: DeserializeOwned>(
    before: &Map<String, Value>,
    patch: &Map<String, Value>,
) -> Option<String> {
    let (key, _) = patch.iter().find(|(key, value)| {
        let mut after = before.clone();
        let alone = Map::from_iter([((*key).clone(), (*value).clone())]);
        merge_members(&mut after, &alone);
        serde_json::from_value::<T>(Value::Object(after)).is_err()
    })?;
    Some(format!("/{}", escaped(key)))
}

fn keeps_identity(before: &Spec, after: &Spec) -> Result<(), Error> {
    let kind = before.kind();
    let fixed =
        |what, pointer: &str| Err(Error::Immutable { kind, what, pointer: pointer.to_owned() });
    if before.name() != after.name() {
        return fixed("the name", "/name");
    }
    if before.project_id() != after.project_id() {
        return fixed("the project", "/project_id");
    }
    match (before, after) {
        (Spec::ApiKey(before), Spec::ApiKey(after)) => {
            if before.workspace_id != after.workspace_id {
                return fixed("the workspace", "/workspace_id");
            }
            if before.secret_hash != after.secret_hash {
                return fixed("the secret", "/secret_hash");
            }
            Ok(())
        }
        (Spec::Action(before), Spec::Action(after)) if before.action != after.action => {
            fixed("the kind of action", "/action")
        }
        _ => Ok(()),
    }
}

fn is_shallower_than(members: &Map<String, Value>, depth: usize) -> bool {
    members.values().all(|value| crate::resource::validate::is_shallower(value, depth))
}
