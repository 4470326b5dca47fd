//! Files that people write: definitions and resources, as YAML or JSON.

use std::io::Read;
use std::path::{Path, PathBuf};

use domain::definition::{Definition, Problem, parse};
use domain::ids::{ProjectId, WorkspaceId};
use domain::limits;
use domain::resource::{self, Change, Command, Kind, Resource, Spec};
use serde_json::{Value, json};

use crate::client::{Finding, problem_line};
use crate::exit::Failure;

/// What one document holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Document {
    Definition(Box<Definition>),
    /// Another resource: its kind, and its spec, which may lack the project.
    Resource {
        kind: Kind,
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
    check(&text).map_err(|problems| {
        let findings: Vec<_> = problems.into_iter().map(Finding::from).collect();
        refused(path, &findings)
    })
}

/// Reads the definition of a file, or of the folder that it is in.
pub(crate) fn read_at(path: &Path) -> Result<Definition, Failure> {
    if path.is_dir() { read(&of_folder(path)?) } else { read(path) }
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
    let of_file = |findings: Vec<Finding>| refused(path, &findings);
    checked(path)?.into_iter().map(|document| document.map_err(of_file)).collect()
}

/// The documents of a file, each read and checked on its own.
pub(crate) fn checked(path: &Path) -> Result<Vec<Result<Document, Vec<Finding>>>, Failure> {
    let text = read_text(path)?;
    let mut parts = split(&text);
    if parts.is_empty() {
        // A definition, of which everything is missing.
        parts.push((0, &text));
    }
    Ok(parts.into_iter().map(|(start, part)| document(&text[..start], part)).collect())
}

fn document(before: &str, part: &str) -> Result<Document, Vec<Finding>> {
    let read = serde_saphyr::from_str::<Value>(part).ok();
    let kind = read.as_ref().and_then(|value| value.get("kind")?.as_str().map(str::to_owned));
    // Blank lines in front keep the line numbers of the whole file.
    let above = before.matches('\n').count();
    match (kind, read) {
        (Some(kind), Some(body)) if kind != Kind::WorkflowDefinition.as_str() => {
            let line = above + part.lines().position(|line| line.starts_with("kind")).unwrap_or(0);
            let with_line = |finding| vec![Finding { line: Some(line as u64 + 1), ..finding }];
            resource(&kind, body).map_err(with_line)
        }
        _ => match check(&("\n".repeat(above) + part)) {
            Ok(definition) => Ok(Document::Definition(Box::new(definition))),
            Err(problems) => Err(problems.into_iter().map(Finding::from).collect()),
        },
    }
}

fn resource(kind: &str, mut body: Value) -> Result<Document, Finding> {
    let known = Kind::ALL.into_iter().find(|known| known.as_str() == kind);
    let Some(kind) = known.filter(|kind| *kind != Kind::ApiKey) else {
        let message = format!(
            "unknown kind {kind:?}: write workspace, project, workflow, action, prompt_spec, \
             model_profile, or leave it out for a workflow definition"
        );
        return Err(finding("/kind", message));
    };
    if let Some(fields) = body.as_object_mut() {
        fields.shift_remove("kind");
    }
    // `{kind, spec: {…}}` and `{kind, …}` mean the same.
    if let Some(Value::Object(spec)) = body.get("spec").cloned() {
        body = Value::Object(spec);
    }
    check_resource(kind, body.clone())?;
    Ok(Document::Resource { kind, body })
}

/// Checks a resource as the server will, in any project where it names none.
fn check_resource(kind: Kind, mut body: Value) -> Result<(), Finding> {
    if let (true, Some(fields)) = (is_of_project(kind), body.as_object_mut()) {
        let any = ProjectId::derived(&WorkspaceId::derived("any", "any").to_string(), "any");
        fields.entry("project_id").or_insert_with(|| any.to_string().into());
    }
    let spec = spec(kind, body).map_err(|error| finding("", error.to_string()))?;
    let change = Change::Create(Box::new(spec));
    let command = Command { change, expected_version: None, at: chrono::Utc::now() };
    match resource::decide(&Resource::Absent, &command) {
        Ok(_) => Ok(()),
        Err(error) => Err(finding(error.pointer().unwrap_or_default(), error.to_string())),
    }
}

/// A body as the spec of its kind.
pub(crate) fn spec(kind: Kind, body: Value) -> Result<Spec, serde_json::Error> {
    serde_json::from_value(json!({"kind": kind, "spec": body}))
}

/// Whether resources of the kind belong to a project.
pub(crate) const fn is_of_project(kind: Kind) -> bool {
    !matches!(kind, Kind::Workspace | Kind::Project | Kind::ApiKey)
}

fn finding(pointer: &str, message: String) -> Finding {
    Finding { pointer: pointer.to_owned(), message, ..Finding::default() }
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

fn refused(path: &Path, findings: &[Finding]) -> Failure {
    let name = path.display().to_string();
    let lines: Vec<_> = findings.iter().map(|found| problem_line(Some(&name), found)).collect();
    Failure::Refused(format!("the file is invalid\n  {}", lines.join("\n  ")))
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
    fn resources_are_checked_as_what_they_are() {
        let body = json!({
            "kind": "model_profile", "name": "fast", "provider": "mock", "model": "m"
        });
        let document = resource("model_profile", body.clone()).expect("it is well");
        let wanted = json!({"name": "fast", "provider": "mock", "model": "m"});
        let kind = Kind::ModelProfile;
        assert_eq!(document, Document::Resource { kind, body: wanted.clone() });
        let nested = json!({"kind": "model_profile", "spec": wanted});
        assert_eq!(resource("model_profile", nested).expect("it is well"), document);
        assert_eq!(resource("modle", body.clone()).expect_err("no kind").pointer, "/kind");
        let mut broken = body;
        broken["model"] = "".into();
        assert_eq!(resource("model_profile", broken).expect_err("empty").pointer, "/model");
        assert!(resource("model_profile", json!({"name": "a"})).is_err());
    }

    #[test]
    fn each_document_of_a_file_is_read_with_its_lines() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let text = "kind: project\nname: a\n---\n\nkind: action\nname: b\n---\nname: c\nstart: d\n";
        std::fs::write(file.path(), text).expect("it is written");
        let documents = checked(file.path()).expect("it can be read");
        assert!(matches!(&documents[0], Ok(Document::Resource { kind: Kind::Project, .. })));
        let lines = |found: &Result<Document, Vec<Finding>>| match found {
            Ok(_) => Vec::new(),
            Err(found) => found.iter().map(|one| one.line).collect::<Vec<_>>(),
        };
        assert_eq!(lines(&documents[1]), [Some(5)]);
        assert_eq!(lines(&documents[2]).first(), Some(&Some(8)), "{:?}", documents[2]);
        std::fs::write(file.path(), "").expect("it is written");
        assert!(checked(file.path()).expect("it can be read")[0].is_err());
    }
}
