//! `wonder apply`: publishes definitions and other resources from files.

use std::path::PathBuf;

use serde_json::{Value, json};

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
    // Definitions may refer to other resources, so those go first.
    documents.sort_by_key(|document| matches!(document, Document::Definition(_)));
    let client = Client::new(&global.client)?;
    let mut applied = Vec::new();
    for document in documents {
        applied.push(apply(&client, &global.project, document).await?);
    }
    let answer = Answer { text: json!({"items": applied}).to_string() };
    let columns = [("id", "/id"), ("name", "/name"), ("version", "/version")];
    global.output.list(&answer, &columns)?;
    Ok(Exit::Completed)
}

/// Publishes one document and answers what the server said.
async fn apply(client: &Client, project: &str, document: Document) -> Result<Value, Failure> {
    match document {
        Document::Definition(definition) => {
            let project = client.project(project).await?;
            publish(client, project.as_deref(), &json!(definition)).await
        }
        Document::Resource { path, mut body } => {
            let owned = !matches!(path, "/workspaces" | "/projects");
            if let (true, Some(fields)) = (owned, body.as_object_mut()) {
                let project = client.project_id(project).await?;
                fields.entry("project_id").or_insert_with(|| project.into());
            }
            client.post(path, &[], &body).await?.read()
        }
    }
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
