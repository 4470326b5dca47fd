//! Resources over a real journal in a folder of the test.

use chassis::clock::SystemClock;
use chassis::journal::sqlite::{SqliteJournal, SqliteOptions};
use domain::definition::Definition;
use domain::ids::DefinitionId;
use domain::resource::DefinitionSpec;
use serde_json::{Value, json};

use super::*;
use crate::store::payload;

pub(crate) struct World {
    pub(crate) resources: Resources,
    pub(crate) journal: Arc<SqliteJournal>,
    pub(crate) defaults: Defaults,
    _folder: tempfile::TempDir,
}

pub(crate) async fn world() -> World {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("journal.db");
    let journal =
        SqliteJournal::open(&path, SqliteOptions::default()).await.expect("an open journal");
    let resources = over(&journal);
    let defaults = resources.ensure_defaults().await.expect("the defaults");
    World { resources, journal, defaults, _folder: folder }
}

pub(crate) fn over(journal: &Arc<SqliteJournal>) -> Resources {
    let journal: Arc<dyn Journal> = journal.clone();
    Resources::new(journal, Arc::new(SystemClock::new()))
}

impl World {
    fn envelope(&self, command: Command) -> CommandEnvelope {
        CommandEnvelope::new(
            CommandId::new(uuid::Uuid::now_v7()),
            self.defaults.workspace_id,
            "test",
            command,
        )
    }

    pub(crate) async fn execute(&self, command: Command) -> Result<Receipt, Rejection> {
        self.resources.execute(&self.envelope(command)).await
    }

    pub(crate) async fn create(&self, kind: &str, members: Value) -> Result<Receipt, Rejection> {
        self.execute(self.creation(kind, members)).await
    }

    fn creation(&self, kind: &str, mut members: Value) -> Command {
        if !matches!(kind, "workspace" | "project" | "api_key") && members["project_id"].is_null() {
            members["project_id"] = json!(self.defaults.project_id);
        }
        let spec = json!({"kind": kind, "spec": members});
        Command::Create(Box::new(serde_json::from_value(spec).expect("a readable spec")))
    }

    pub(crate) async fn publish(&self, definition: Value) -> Result<Receipt, Rejection> {
        let spec = DefinitionSpec {
            project_id: self.defaults.project_id,
            definition: serde_json::from_value::<Definition>(definition).expect("a definition"),
            hash: String::new(),
        };
        self.execute(Command::Create(Box::new(Spec::WorkflowDefinition(spec)))).await
    }

    async fn head(&self) -> u64 {
        self.journal.head().await.expect("a head")
    }

    /// Refused with a code, and nothing was written.
    pub(crate) async fn refuses(
        &self,
        command: Command,
        kind: RejectionKind,
        code: &str,
    ) -> Rejection {
        let before = self.head().await;
        let refusal = self.execute(command).await.expect_err("a refusal");
        assert_eq!((refusal.kind, refusal.code.as_str()), (kind, code), "{refusal}");
        assert_eq!(self.head().await, before, "a refusal wrote something");
        refusal
    }
}

pub(crate) fn ship(message: &str) -> Value {
    let with = json!({"result": message});
    json!({"name": "ship", "start": "a",
        "nodes": {"a": {"action": {"kind": "mock", "with": with}}}})
}

#[tokio::test]
async fn the_defaults_are_made_once() {
    let world = world().await;
    let head = world.head().await;
    assert_eq!(world.resources.ensure_defaults().await, Ok(world.defaults));
    let elsewhere = over(&world.journal);
    assert_eq!(elsewhere.ensure_defaults().await, Ok(world.defaults));
    assert_eq!((head, world.head().await), (2, 2));
    let id = world.defaults.workspace_id.to_string();
    let history = payload::history(&*world.journal, "workspace", &id, 0).await.expect("events");
    assert_eq!(*history[0].0.workspace_id, *id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_key_gets_the_same_answer_however_many_ask() {
    let world = Arc::new(world().await);
    let command = world.creation("prompt_spec", json!({"name": "greet", "template": "hi"}));
    let mut envelope = world.envelope(command);
    envelope.idempotency_key = Some("k-1".to_owned());
    envelope.fingerprint = Some("f-1".to_owned());
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let (resources, mut envelope) = (world.resources.clone(), envelope.clone());
            envelope.id = CommandId::new(uuid::Uuid::now_v7());
            tokio::spawn(async move { resources.execute(&envelope).await })
        })
        .collect();
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.expect("a task that ends").expect("a receipt"));
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert!(answers[0].created && answers[0].version == 1);
    assert_eq!(answers[0].position, 3);
    assert_eq!(world.head().await, 3);

    envelope.fingerprint = Some("f-2".to_owned());
    let refusal = world.resources.execute(&envelope).await.expect_err("another request");
    assert_eq!(refusal.code, "idempotency_key_reused");
    assert_eq!(refusal.kind, RejectionKind::Invalid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_is_given_once_however_many_want_it() {
    let world = Arc::new(world().await);
    let tasks: Vec<_> = (0..16)
        .map(|index| {
            let world = Arc::clone(&world);
            let members = json!({"name": "greet", "template": format!("hi {index}")});
            tokio::spawn(async move { world.create("prompt_spec", members).await })
        })
        .collect();
    let mut created = 0;
    for task in tasks {
        match task.await.expect("a task that ends") {
            Ok(receipt) => created += u32::from(receipt.created),
            Err(refusal) => assert_eq!(refusal.code, "already_exists"),
        }
    }
    assert_eq!((created, world.head().await), (1, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patches_at_once_are_all_applied() {
    let world = Arc::new(world().await);
    let made = world.create("project", json!({"name": "p"})).await.expect("a project");
    let patches = [
        json!({"description": "d"}),
        json!({"default_model": "m"}),
        json!({"limits": {"tasks_in_flight_per_run": 7}}),
    ];
    let tasks: Vec<_> = patches
        .into_iter()
        .map(|patch| {
            let (world, id) = (Arc::clone(&world), made.id.clone());
            let command = Command::Revise { kind: Kind::Project, id, patch };
            tokio::spawn(async move { world.execute(command).await })
        })
        .collect();
    for task in tasks {
        task.await.expect("a task that ends").expect("a receipt");
    }
    let fresh = over(&world.journal);
    for resources in [&fresh, &world.resources] {
        let head = resources.inner.heads.head(Kind::Project, &made.id).await.expect("a read");
        let head = head.expect("a project");
        let Some(Spec::Project(spec)) = head.resource.spec() else { panic!("a project's spec") };
        assert_eq!(head.resource.version(), 4);
        assert_eq!(spec.description.as_deref(), Some("d"));
        assert_eq!(spec.limits.tasks_in_flight_per_run, Some(7));
        assert!(spec.default_model.is_some());
    }
}

#[tokio::test]
async fn if_match_guards_a_change() {
    let world = world().await;
    let made = world.create("project", json!({"name": "p"})).await.expect("a project");
    let patch = json!({"description": "d"});
    let revise = Command::Revise { kind: Kind::Project, id: made.id.clone(), patch };
    let mut envelope = world.envelope(revise.clone());
    envelope.expected_version = Some(2);
    let refusal = world.resources.execute(&envelope).await.expect_err("a refusal");
    assert_eq!(refusal.kind, RejectionKind::PreconditionFailed);
    assert_eq!(refusal.code, "version_mismatch");
    envelope.expected_version = Some(1);
    let receipt = world.resources.execute(&envelope).await.expect("a receipt");
    assert_eq!((receipt.version, receipt.position, receipt.created), (2, 4, false));
    let again = world.execute(revise).await.expect("nothing to change");
    assert_eq!((again.version, again.position, again.at), (2, 4, receipt.at));
    assert_eq!(world.head().await, 4);
}

#[tokio::test]
async fn what_is_refused_wrote_nothing() {
    use RejectionKind::{Conflict, Invalid, NotFound};
    let world = world().await;
    let project = world.defaults.project_id;
    let foreign = ProjectId::derived("elsewhere", "p");
    let profile = |members: Value| {
        let mut whole = json!({"name": "m", "provider": "openai", "model": "x"});
        for (key, value) in members.as_object().expect("members") {
            whole[key] = value.clone();
        }
        world.creation("model_profile", whole)
    };
    let refused =
        world.refuses(profile(json!({"base_url": "gopher://x"})), Invalid, "invalid_spec");
    assert_eq!(refused.await.pointer.as_deref(), Some("/base_url"));
    let refused = world.refuses(profile(json!({"project_id": foreign})), NotFound, "not_found");
    assert_eq!(refused.await.pointer.as_deref(), Some("/project_id"));
    let workflow = json!({"name": "w", "definition_id": DefinitionId::derived("x", "y")});
    let refused = world.refuses(world.creation("workflow", workflow), NotFound, "not_found");
    assert_eq!(refused.await.pointer.as_deref(), Some("/definition_id"));
    let id = project.to_string();
    let wrong_kind = Command::Archive { kind: Kind::Workflow, id: id.clone() };
    world.refuses(wrong_kind, NotFound, "not_found").await;
    let patch = json!({"name": "other"});
    let rename = Command::Revise { kind: Kind::Project, id: id.clone(), patch };
    world.refuses(rename, Invalid, "immutable").await;

    world.execute(Command::Archive { kind: Kind::Project, id: id.clone() }).await.expect("gone");
    world.refuses(Command::Archive { kind: Kind::Project, id }, Conflict, "archived").await;
    world.refuses(profile(json!({})), Conflict, "archived").await;
    let again = world.creation("project", json!({"name": "default"}));
    world.refuses(again, Conflict, "name_archived").await;
}

#[tokio::test]
async fn another_workspace_sees_nothing_of_this_one() {
    let world = world().await;
    let made = world.create("workspace", json!({"name": "other"})).await.expect("a workspace");
    let id = world.defaults.project_id.to_string();
    let mut envelope = world.envelope(Command::Archive { kind: Kind::Project, id: id.clone() });
    envelope.workspace_id = made.id.parse().expect("an id");
    let refusal = world.resources.execute(&envelope).await.expect_err("a refusal");
    assert_eq!(refusal.code, "not_found");
    let theirs =
        world.resources.authorise_project(envelope.workspace_id, world.defaults.project_id);
    assert_eq!(theirs.await.expect_err("a refusal").code, "not_found");
    let own = world.defaults;
    assert_eq!(world.resources.authorise_project(own.workspace_id, own.project_id).await, Ok(()));
}

#[tokio::test]
async fn the_same_definition_is_published_once() {
    let world = world().await;
    let one = world.publish(ship("one")).await.expect("version 1");
    let two = world.publish(ship("two")).await.expect("version 2");
    assert_eq!((one.version, two.version, two.created), (1, 2, true));
    let again = world.publish(ship("one")).await.expect("version 1");
    assert_eq!((again.version, again.position, again.created), (1, one.position, false));
    assert_eq!(world.head().await, two.position);

    let head = world.head().await;
    let mut broken = ship("three");
    broken["start"] = json!("nowhere");
    let refusal = world.publish(broken).await.expect_err("a refusal");
    assert_eq!(refusal.code, "invalid_definition");
    assert!(!refusal.problems.is_empty());
    assert_eq!(world.head().await, head);
}
