//! Files that people write: definitions and resources, as YAML or JSON.

use std::io::Read;
use std::path::{Path, PathBuf};

use domain::definition::{Definition, Problem, parse};
use domain::limits;
use serde_json::Value;

use crate::client::problem_line;
use crate::exit::Failure;

/// What one document holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Document {
    Definition(Box<Definition>),
    /// Another resource: the collection's path, and the body to post.
    Resource {
        path: &'static str,
        body: Value,
    },
}

/// Reads and checks a definition; its problems are in the order of the document.
pub(crate) fn check(text: &str) -> Result<Definition, Vec<Problem>> {
    parse::read(text.as_bytes())
}

/// Reads a definition file, or says what is wrong with it, line by line.
pub(crate) fn read(path: &Path) -> Result<Definition, Failure> {
    let text = read_text(path)?;
    check(&text).map_err(|problems| refused(path, &problems))
}

/// The one definition in a folder: what is called `workflow` there.
pub(crate) fn of_folder(folder: &Path) -> Result<PathBuf, Failure> {
    let names = ["workflow.yaml", "workflow.yml", "workflow.json"];
    let found: Vec<_> =
        names.iter().map(|name| folder.join(name)).filter(|path| path.is_file()).collect();
    let folder = folder.display();
    match found.as_slice() {
        [file] => Ok(file.clone()),
        [] => Err(Failure::Refused(format!(
            "{folder} is a folder without a workflow.yaml: name the definition's file"
        ))),
        _ => Err(Failure::Refused(format!(
            "{folder} holds {} definitions called workflow: name one of the files",
            found.len()
        ))),
    }
}

/// All definition and resource files of a path: itself, or what lies in the folder and below.
pub(crate) fn files(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            let hidden = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.'));
            if hidden {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ext| ext == "yaml" || ext == "yml") {
                found.push(path);
            }
        }
    }
    if found.is_empty() {
        let text = format!("{} and the folders in it hold no YAML: name a file", path.display());
        return Err(Failure::Refused(text));
    }
    found.sort();
    Ok(found)
}

/// Reads the documents of a file. Definitions stand alone; files of other resources may hold
/// several documents, each with its `kind`.
pub(crate) fn documents(path: &Path) -> Result<Vec<Document>, Failure> {
    let text = read_text(path)?;
    let parts = split(&text);
    let mut documents = Vec::new();
    for (start, part) in parts {
        let kind = serde_saphyr::from_str::<Value>(part)
            .ok()
            .and_then(|value| Some((value.get("kind")?.as_str()?.to_owned(), value)));
        documents.push(match kind {
            Some((kind, body)) if kind != "workflow_definition" => resource(path, &kind, body)?,
            _ => {
                // Blank lines in front keep the line numbers of the whole file.
                let before = text[..start].matches('\n').count();
                let part = "\n".repeat(before) + part;
                let definition = check(&part).map_err(|problems| refused(path, &problems))?;
                Document::Definition(Box::new(definition))
            }
        });
    }
    Ok(documents)
}

fn resource(path: &Path, kind: &str, mut body: Value) -> Result<Document, Failure> {
    let path = match kind {
        "workspace" => "/workspaces",
        "project" => "/projects",
        "workflow" => "/workflows",
        "action" => "/actions",
        "prompt_spec" => "/prompt-specs",
        "model_profile" => "/model-profiles",
        _ => {
            return Err(Failure::Refused(format!(
                "{}: unknown kind {kind:?}: write workspace, project, workflow, action, \
                 prompt_spec, model_profile, or leave it out for a workflow definition",
                path.display()
            )));
        }
    };
    if let Some(fields) = body.as_object_mut() {
        fields.shift_remove("kind");
    }
    // `{kind, spec: {…}}` and `{kind, …}` mean the same.
    if let Some(Value::Object(spec)) = body.get("spec").cloned() {
        body = Value::Object(spec);
    }
    Ok(Document::Resource { path, body })
}

/// The YAML documents of a text and where they start; JSON has no separator and is one.
fn split(text: &str) -> Vec<(usize, &str)> {
    let mut parts = Vec::new();
    let mut start = 0;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if line.trim_end() == "---" {
            parts.push((start, &text[start..at]));
            start = at + line.len();
        }
        at += line.len();
    }
    parts.push((start, &text[start..]));
    let is_blank = |part: &str| {
        part.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
    };
    parts.retain(|(_, part)| !is_blank(part));
    parts
}

/// Reads a file, at most as large as a request may be.
pub(crate) fn read_text(path: &Path) -> Result<String, Failure> {
    let unreadable = |error: std::io::Error| {
        Failure::Refused(format!("cannot read {}: {error}", path.display()))
    };
    let limit = limits::INPUT_BYTES as u64;
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(limit + 1).read_to_string(&mut text))
        .map_err(unreadable)?;
    if text.len() as u64 > limit {
        return Err(Failure::Refused(format!("{} is over {limit} bytes", path.display())));
    }
    Ok(text)
}

fn refused(path: &Path, problems: &[Problem]) -> Failure {
    let name = path.display().to_string();
    let lines: Vec<_> =
        problems.iter().map(|p| problem_line(Some(&name), &p.clone().into())).collect();
    Failure::Refused(format!("the definition is invalid\n  {}", lines.join("\n  ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_split_at_their_separators() {
        assert_eq!(split("a: 1\n---\nb: 2\n"), [(0, "a: 1\n"), (9, "b: 2\n")]);
        assert_eq!(split("# only a comment\n---\nb: |\n  x --- y\n"), [(21, "b: |\n  x --- y\n")]);
        assert!(split("\n").is_empty());
    }

    #[test]
    fn a_folder_stands_for_its_one_workflow() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(of_folder(folder.path()).is_err() && files(folder.path()).is_err());
        let file = folder.path().join("workflow.yaml");
        std::fs::write(&file, "name: x").expect("it is written");
        assert_eq!(of_folder(folder.path()).expect("there is one"), file);
        assert_eq!(files(folder.path()).expect("there is one"), [file]);
        std::fs::write(folder.path().join("workflow.json"), "{}").expect("it is written");
        assert!(of_folder(folder.path()).is_err());
    }

    #[test]
    fn resources_go_to_their_collections() {
        let body = serde_json::json!({"kind": "model_profile", "name": "fast", "model": "m"});
        let document = resource(Path::new("x.yaml"), "model_profile", body).expect("it is known");
        let wanted = serde_json::json!({"name": "fast", "model": "m"});
        assert_eq!(document, Document::Resource { path: "/model-profiles", body: wanted });
        assert!(resource(Path::new("x.yaml"), "modle", Value::Null).is_err());
    }
}
