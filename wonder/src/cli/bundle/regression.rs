//! `wonder bundle test`: recorded runs decided again, as a regression test of the engine or of a
//! changed definition.

use std::path::PathBuf;

use ::projections::{Bundle, Histories};
use domain::definition::Definition;
use domain::ids::RunId;
use protocol::PartedRun;
use serde::Serialize;
use serde_json::{Value, json};

use super::super::Global;
use super::{refused, rows};
use crate::bundle_file::opened;
use crate::definition_file;
use crate::exit::{Exit, Failure};
use crate::output::{Column, say};

pub(super) const EXIT_CODES: &str = "Exit codes:
  0  every run goes the same way
  1  one doesn't, or can't be decided by the definition
  2  a file isn't a whole bundle, or the definition is invalid";

/// What follows of masks.
const MASKED: &str = "what was made of a key is compared with what is made of its mask, so a \
                      difference may be that, and agreement isn't about the key itself";

const COLUMNS: &[Column] = &[
    ("file", "/file"),
    ("run", "/run_id"),
    ("definition", "/definition"),
    ("result", "/result"),
    ("at event", "/sequence"),
    ("node", "/node"),
    ("recorded", "/recorded/type"),
    ("decided", "/decided/type"),
    ("why", "/why"),
];

/// What is decided again, and by what.
#[derive(Debug, clap::Args)]
pub(crate) struct TestArgs {
    /// The bundles
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Another version of the definition that runs follow, by its name: a file, or a folder with a
    /// workflow.yaml
    #[arg(short, long, value_name = "FILE")]
    definition: Option<PathBuf>,
    /// Exit code 1 also where a run goes the same way with other values
    #[arg(long, requires = "definition")]
    strict: bool,
}

/// What came of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    /// Event by event.
    Same,
    /// It goes the same way, with other values.
    Values,
    /// It goes another way.
    Path,
    /// Its input is refused.
    Refused,
    /// This engine decides otherwise by the definition that the run followed.
    Differs,
    /// It can't be decided by the definition.
    NotDecided,
}

/// A line of the answer.
#[derive(Debug, Serialize)]
struct Tested {
    file: String,
    run_id: String,
    definition: String,
    events: u64,
    result: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recorded: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decided: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

pub(super) async fn execute(global: &Global, args: TestArgs) -> Result<Exit, Failure> {
    let definition = args.definition.as_deref().map(definition_file::read_at).transpose()?;
    let (mut tested, mut masked) = (Vec::new(), 0);
    for file in &args.files {
        let bundle = opened(file)?;
        let is_masked = bundle.manifest().is_masked;
        masked += u64::from(is_masked);
        let before = tested.len();
        for run in bundle.view().await.map_err(refused)?.runs {
            let found = Tested {
                file: file.display().to_string(),
                run_id: run.run_id,
                definition: run.definition,
                events: run.sequence,
                result: Outcome::Same,
                sequence: None,
                node: None,
                recorded: None,
                decided: None,
                why: None,
            };
            match &definition {
                None => tested.push(verified(&bundle, found).await?),
                Some(by) if follows(&found, by) => {
                    tested.push(rehearsed(&bundle, found, by).await?);
                }
                Some(_) => {}
            }
        }
        if let (Some(definition), true) = (&definition, tested.len() == before) {
            let (file, name) = (file.display(), &definition.name);
            let text = format!("no run of {file} follows a definition with the name {name:?}");
            return Err(Failure::Refused(text));
        }
        if is_masked {
            tested.iter_mut().skip(before).for_each(Tested::is_of_masks);
        }
    }
    rows(global.output, &json!(tested), COLUMNS)?;
    if masked > 0 {
        say!("{masked} bundles are masked: {MASKED}");
    }
    let is_good = |one: &&Tested| match one.result {
        Outcome::Same => true,
        Outcome::Values => !args.strict,
        Outcome::Path | Outcome::Refused | Outcome::Differs | Outcome::NotDecided => false,
    };
    let (all, good) = (tested.len(), tested.iter().filter(is_good).count());
    let events: u64 = tested.iter().map(|one| one.events).sum();
    say!("{all} runs, {events} events: {good} as they were, {} not", all - good);
    Ok(if good == all { Exit::Completed } else { Exit::Failed })
}

impl Tested {
    /// Says that the difference may be that of the masks.
    fn is_of_masks(&mut self) {
        if self.result != Outcome::Same {
            let why = self.why.take().map(|why| format!("; {why}")).unwrap_or_default();
            self.why = Some(format!("the bundle is masked{why}"));
        }
    }
}

/// Decides by the definition that the run followed.
async fn verified(bundle: &Bundle, tested: Tested) -> Result<Tested, Failure> {
    let (workspace_id, run_id) = (bundle.manifest().workspace_id, id(&tested)?);
    let verified = Histories::of(bundle).run_verified(workspace_id, run_id).await;
    let Some(difference) = verified.map_err(refused)?.difference else { return Ok(tested) };
    Ok(Tested {
        result: Outcome::Differs,
        sequence: Some(difference.sequence),
        recorded: difference.recorded,
        decided: difference.decided,
        ..tested
    })
}

/// Decides by another one.
async fn rehearsed(bundle: &Bundle, tested: Tested, by: &Definition) -> Result<Tested, Failure> {
    let (workspace_id, run_id) = (bundle.manifest().workspace_id, id(&tested)?);
    let rehearsed = Histories::of(bundle).run_rehearsed(workspace_id, run_id, by).await;
    Ok(match rehearsed.map_err(refused)? {
        Ok(None) => tested,
        Ok(Some(parted)) => of_parting(tested, parted),
        Err(why) => Tested { result: Outcome::NotDecided, why: Some(why), ..tested },
    })
}

fn of_parting(tested: Tested, parted: PartedRun) -> Tested {
    let PartedRun { kind, sequence, node, recorded, decided, problems, .. } = parted;
    let result = match &*kind {
        "values" => Outcome::Values,
        "refused" => Outcome::Refused,
        _ => Outcome::Path,
    };
    let why = problems.first().map(|problem| format!("{}: {}", problem.pointer, problem.message));
    Tested { result, sequence: Some(sequence), node, recorded, decided, why, ..tested }
}

/// Whether a run follows a version of a definition.
fn follows(tested: &Tested, definition: &Definition) -> bool {
    let followed = tested.definition.rsplit_once('@');
    followed.is_some_and(|(name, _)| name == definition.name.as_str())
}

fn id(tested: &Tested) -> Result<RunId, Failure> {
    tested.run_id.parse().map_err(|error| Failure::Refused(format!("{error}")))
}
