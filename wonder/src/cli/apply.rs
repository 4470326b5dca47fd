//! `wonder apply`: publishes definitions and other resources from files.

use std::path::PathBuf;

use domain::resource::Kind;
use serde_json::{Map, Value, json};

use super::Global;
use crate::client::{Answer, Client};
use crate::definition_file::{self, Document};
use crate::exit::{EXIT_CODES, Exit, Failure};

/// Which files.
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct ApplyArgs {
    /// A file, or a folder that is searched for YAML (repeatable)
    #[arg(short, long = "file", required = true, value_name = "FILE|DIR")]
    file: Vec<PathBuf>,
}

pub(crate) async fn execute(global: &Global, args: ApplyArgs) -> Result<Exit, Failure> {
    // Everything is read and checked before anything is sent.
    let mut documents = Vec::new();
    for path in &args.file {
        for file in definition_file::files(path)? {
            documents.extend(definition_file::documents(&file)?);
        }
    }
    documents.sort_by_key(rank);
    let client = Client::new(&global.client)?;
    let mut applied = Vec::new();
    for document in documents {
        applied.push(apply(&client, &global.project, document).await?);
    }
    let answer = Answer { text: json!({"items": applied}).to_string() };
    let columns = [
        ("kind", "/kind"),
        ("name", "/name"),
        ("id", "/id"),
        ("version", "/version"),
        ("result", "/result"),
    ];
    global.output.list(&answer, &columns)?;
    Ok(Exit::Completed)
}

/// What others refer to goes before them: a reference that leads nowhere is refused.
fn rank(document: &Document) -> u8 {
    match document {
        Document::Definition(_) => 5,
        Document::Resource { kind, .. } => match kind {
            Kind::Workspace => 0,
            Kind::Project => 1,
            Kind::ModelProfile => 2,
            Kind::PromptSpec => 3,
            Kind::Action => 4,
            Kind::WorkflowDefinition => 5,
            Kind::Workflow | Kind::ApiKey => 6,
        },
    }
}

/// Brings the server to what one document says; answers the receipt with `kind`, `name` and
/// `result`: `created`, `revised`, `published` or `unchanged`.
async fn apply(client: &Client, project: &str, document: Document) -> Result<Value, Failure> {
    match document {
        Document::Definition(definition) => {
            let project = client.project(project).await?;
            let receipt = publish(client, project.as_deref(), &json!(definition)).await?;
            let result = if receipt["created"] == json!(true) { "published" } else { "unchanged" };
            let name = json!(definition.name);
            Ok(told(receipt, Kind::WorkflowDefinition, &name, result))
        }
        Document::Resource { kind, mut body } => {
            if let (true, Some(fields)) =
                (definition_file::is_of_project(kind), body.as_object_mut())
            {
                let project = client.project_id(project).await?;
                fields.entry("project_id").or_insert_with(|| project.into());
            }
            let (receipt, result) = match client.post(collection(kind), &[], &body).await {
                Ok(answer) => (answer.read()?, "created"),
                Err(Failure::Api(problem)) if problem.code == "already_exists" => {
                    match live(client, kind, &body).await? {
                        Some(view) => revise(client, kind, &view, &body).await?,
                        None => return Err(Failure::Api(problem)),
                    }
                }
                Err(failure) => return Err(failure),
            };
            Ok(told(receipt, kind, &body["name"], result))
        }
    }
}

fn told(mut receipt: Value, kind: Kind, name: &Value, result: &str) -> Value {
    receipt["kind"] = json!(kind);
    receipt["name"] = name.clone();
    receipt["result"] = result.into();
    receipt
}

const fn collection(kind: Kind) -> &'static str {
    match kind {
        Kind::Workspace => "/workspaces",
        Kind::Project => "/projects",
        Kind::WorkflowDefinition => "/workflow-definitions",
        Kind::Workflow => "/workflows",
        Kind::Action => "/actions",
        Kind::PromptSpec => "/prompt-specs",
        Kind::ModelProfile => "/model-profiles",
        Kind::ApiKey => "/api-keys",
    }
}

/// The resource that has the name already.
async fn live(client: &Client, kind: Kind, body: &Value) -> Result<Option<Value>, Failure> {
    let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
    let mut query = vec![("name", text("name")), ("limit", "1".to_owned())];
    if definition_file::is_of_project(kind) {
        query.push(("project_id", text("project_id")));
    }
    let mut page: Value = client.get(collection(kind), &query).await?.read()?;
    Ok(page["items"].get_mut(0).map(Value::take))
}

/// Changes a resource where it isn't what the file says, as a whole: what the file leaves out has
/// its default.
async fn revise(
    client: &Client,
    kind: Kind,
    view: &Value,
    body: &Value,
) -> Result<(Value, &'static str), Failure> {
    let wanted = serde_json::to_value(definition_file::spec(kind, body.clone())?)?;
    let patch = difference(&view["spec"], &wanted["spec"]);
    let receipt = json!({"id": view["id"], "version": view["version"]});
    if patch.as_object().is_some_and(Map::is_empty) {
        return Ok((receipt, "unchanged"));
    }
    let id = view["id"].as_str().unwrap_or_default();
    let receipt: Value =
        client.patch(&format!("{}/{id}", collection(kind)), &patch).await?.read()?;
    let is_new = receipt["version"] != view["version"];
    Ok((receipt, if is_new { "revised" } else { "unchanged" }))
}

/// The JSON merge patch (RFC 7386) that makes one value of the other.
fn difference(from: &Value, to: &Value) -> Value {
    let (Value::Object(old), Value::Object(new)) = (from, to) else { return to.clone() };
    let mut patch = Map::new();
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, wanted) in new {
        match old.get(key) {
            Some(is) if is == wanted => {}
            Some(is) => {
                patch.insert(key.clone(), difference(is, wanted));
            }
            None => {
                patch.insert(key.clone(), wanted.clone());
            }
        }
    }
    Value::Object(patch)
}

/// Publishes a definition; the same content again answers the existing version.
pub(crate) async fn publish(
    client: &Client,
    project: Option<&str>,
    definition: &Value,
) -> Result<Value, Failure> {
    let query: Vec<_> = project.map(|id| ("project_id", id.to_owned())).into_iter().collect();
    client.post("/workflow-definitions", &query, definition).await?.read()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_a_merge_patch() {
        let from = json!({"name": "a", "with": {"x": 1, "y": 2}, "timeout": "5s", "list": [1]});
        let to = json!({"name": "a", "with": {"x": 1, "z": {}}, "list": [1, 2]});
        let wanted = json!({"timeout": null, "with": {"y": null, "z": {}}, "list": [1, 2]});
        assert_eq!(difference(&from, &to), wanted);
        assert_eq!(difference(&to, &to), json!({}));
    }

    #[test]
    fn what_is_referred_to_goes_first() {
        let kinds = ["workflow", "action", "prompt_spec", "model_profile", "project"];
        let of = |name: &str| Kind::ALL.into_iter().find(|kind| kind.as_str() == name);
        let mut documents: Vec<_> = kinds
            .iter()
            .map(|name| Document::Resource { kind: of(name).expect("a kind"), body: Value::Null })
            .collect();
        let example = crate::examples::EXAMPLES[0].definition;
        let definition = definition_file::check(example).expect("it is valid");
        documents.insert(1, Document::Definition(Box::new(definition)));
        documents.sort_by_key(rank);
        let names: Vec<_> = documents
            .iter()
            .map(|document| match document {
                Document::Definition(_) => "definition",
                Document::Resource { kind, .. } => kind.as_str(),
            })
            .collect();
        let wanted =
            ["project", "model_profile", "prompt_spec", "action", "definition", "workflow"];
        assert_eq!(names, wanted);
    }
}
