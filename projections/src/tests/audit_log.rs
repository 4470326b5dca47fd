//! The audit log: what is in it, as what, and for whom.

use domain::resource::{Event as ResourceEvent, Spec};
use protocol::{AuditEntry, AuditFilter, AuditQueries, AuditResult, PageRequest, RunQueries};

use super::*;

/// The metadata of what somebody asks for at the edge.
fn asked_by(actor: &str) -> String {
    json!({"actor": actor, "command_id": "cmd_1", "engine_version": "1",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "origin": {"address": "10.0.0.7", "user_agent": "curl/8"}})
    .to_string()
}

/// Events of one stream, each with metadata of its own.
async fn act(
    world: &World,
    stream: (&str, &str),
    after: u64,
    metadata: &str,
    events: &[Value],
) -> u64 {
    let event = |event: &Value| {
        let mut payload = event.clone();
        let event_type = payload["type"].as_str().expect("a type").to_owned();
        payload.as_object_mut().expect("an object").shift_remove("type");
        NewEvent {
            id: Uuid::now_v7(),
            event_type: event_type.into(),
            event_version: 1,
            payload: payload.to_string().into(),
            recorded_at: None,
        }
    };
    let events = events.iter().map(event).collect();
    world.append_encoded(stream, ours(), after, events, Vec::new(), metadata).await
}

async fn list(world: &World, filter: AuditFilter) -> Vec<AuditEntry> {
    let head = world.journal.head().await.expect("a head");
    let page = PageRequest { min_position: Some(head), ..PageRequest::default() };
    world.views.list_audit(filter, page).await
}

impl crate::Projections {
    async fn list_audit(&self, filter: AuditFilter, page: PageRequest) -> Vec<AuditEntry> {
        AuditQueries::list(self, ours(), filter, page).await.expect("a page").items
    }
}

fn actions(entries: &[AuditEntry]) -> Vec<(&str, &str)> {
    entries.iter().map(|entry| (&*entry.actor, &*entry.action)).collect()
}

fn workflow(members: Value) -> Value {
    let mut spec = json!({"project_id": project_id(1), "name": "nightly",
        "definition_id": DefinitionId::new(Uuid::nil()), "enabled": true});
    for (name, value) in members.as_object().expect("members") {
        spec[name] = value.clone();
    }
    json!({"kind": "workflow", "spec": spec})
}

async fn what_becomes_of_a_resource_is_told_with_what_was_before(storage: Storage) {
    let world = World::new(storage).await;
    let (stream, ann) = (("workflow", "wf_1"), asked_by("key_ann"));
    let specs = [
        workflow(json!({})),
        workflow(json!({"description": "old"})),
        workflow(json!({"description": "old", "paused": true})),
        workflow(json!({"description": "old"})),
        workflow(json!({"description": "d".repeat(3_000), "enabled": false})),
    ];
    for (number, spec) in specs.iter().enumerate() {
        let event_type = if number == 0 { "created" } else { "revised" };
        let event = json!({"type": event_type, "spec": spec, "revision": number + 1});
        act(&world, stream, number as u64, &ann, &[event]).await;
    }
    let bob = json!({"actor": "key_bob"}).to_string();
    act(&world, stream, 5, &bob, &[json!({"type": "archived"})]).await;
    let key: Box<Spec> = Box::new(
        serde_json::from_value(json!({"kind": "api_key", "spec": {"workspace_id": ours(),
            "name": "ci", "secret_hash": "5ec4e7", "scopes": ["read"]}}))
        .expect("a spec"),
    );
    let created = ResourceEvent::Created { spec: key, revision: 1 };
    world.append(("api_key", "key_1"), ours(), 0, std::slice::from_ref(&created)).await;
    world.append(("api_key", "key_2"), theirs(), 0, &[created]).await;

    let all = list(&world, AuditFilter::default()).await;
    let found: Vec<_> = all.iter().map(|entry| &*entry.action).collect();
    // By time, and the key was made at the same time as the workflow.
    assert_eq!(
        found,
        [
            "workflow.archived",
            "workflow.revised",
            "workflow.resumed",
            "workflow.paused",
            "workflow.revised",
            "api_key.created",
            "workflow.created",
        ]
    );
    let paused = &all[3];
    assert_eq!((&*paused.actor, paused.result), ("key_ann", AuditResult::Done));
    assert_eq!(paused.trace_id.as_deref(), Some("0af7651916cd43dd8448eb211c80319c"));
    assert_eq!(paused.command_id.as_deref(), Some("cmd_1"));
    let origin = paused.origin.as_ref().expect("an origin");
    assert_eq!(origin.address.as_deref(), Some("10.0.0.7"));
    assert_eq!(origin.user_agent.as_deref(), Some("curl/8"));
    let [change] = &*paused.changes else { panic!("{:?}", paused.changes) };
    assert_eq!((&*change.pointer, &change.after), ("/paused", &Some(json!(true))));
    let by_place: Vec<_> = all[1]
        .changes
        .iter()
        .map(|change| (&*change.pointer, change.before.clone(), change.after.clone()))
        .collect();
    let long = json!({"left_out_bytes": 3_002});
    assert_eq!(
        by_place,
        [
            ("/enabled", Some(json!(true)), Some(json!(false))),
            ("/description", Some(json!("old")), Some(long)),
        ]
    );
    assert_eq!((&*all[0].actor, &all[0].details["name"]), ("key_bob", &json!("nightly")));
    let told = serde_json::to_string(&all).expect("JSON");
    assert!(!told.contains("5ec4e7"), "the hash of a secret is told");
    let compared = world.views.compare("audit_log", |_| {}).await.expect("it compares");
    assert_eq!(compared.difference, None);
}

async fn what_is_done_to_runs_is_told_and_what_they_do_is_not(storage: Storage) {
    let world = World::new(storage).await;
    let (ann, engine) = (asked_by("key_ann"), json!({"actor": "coordinator"}).to_string());
    let run = run_id(7).to_string();
    let stream = ("run", &*run);
    let begun = serde_json::to_value(started(run_id(7), json!({}), &[])).expect("JSON");
    let steps = [
        (&ann, vec![begun.clone(), json!({"type": "token_routed", "token": 1})]),
        (&ann, vec![json!({"type": "run_paused", "reason": "night"})]),
        (&ann, vec![json!({"type": "run_resumed"})]),
        (&engine, vec![json!({"type": "run_paused", "by_parent": true})]),
        (&engine, vec![json!({"type": "run_resumed"})]),
        (
            &ann,
            vec![json!({"type": "signal_received", "number": 1, "name": "go",
            "payload": "a secret", "sent_at": moment(0)})],
        ),
        (
            &ann,
            vec![json!({"type": "gate_answered", "token": 4, "actor": "key_ann",
            "decision": "reject", "comment": "no", "value": "a secret", "at": moment(0)})],
        ),
        (&ann, vec![json!({"type": "run_cancelled", "reason": "enough"})]),
    ];
    let mut sequence = 0;
    for (metadata, events) in &steps {
        act(&world, stream, sequence, metadata, events).await;
        sequence += events.len() as u64;
    }
    // A child is its parent's act, and a retry shares what its run did.
    let mut child = begun.clone();
    child["parent"] = json!({"run_id": run, "token": 1, "depth": 1});
    act(&world, ("run", "run_child"), 0, &engine, &[child]).await;
    let retry = json!({"actor": "key_ann", "shared": 2, "retry": true}).to_string();
    let forked = json!({"type": "run_forked", "run_id": "run_retry", "from": run, "sequence": 2});
    let shared = json!({"type": "run_paused"});
    act(&world, ("run", "run_retry"), 0, &retry, &[begun, shared, forked]).await;
    let failed = json!({"type": "trigger_failed", "workflow_id": "wf_1", "name": "nightly",
        "key": "k", "at": moment(0), "code": "paused", "message": "it stands still"});
    act(&world, ("trigger", "trg_1"), 0, r#"{"actor":"trigger"}"#, &[failed]).await;

    let to_run = AuditFilter { run_id: Some(run.clone()), ..AuditFilter::default() };
    let found = list(&world, to_run).await;
    assert_eq!(
        actions(&found),
        [
            ("key_ann", "run.cancelled"),
            ("key_ann", "gate.answered"),
            ("key_ann", "run.signalled"),
            ("key_ann", "run.resumed"),
            ("key_ann", "run.paused"),
            ("key_ann", "run.started"),
        ]
    );
    assert_eq!(found[0].details, *json!({"reason": "enough"}).as_object().expect("an object"));
    assert_eq!(found[1].resource_id, format!("{run}.4"));
    assert_eq!(found[5].details["definition"], "flow-1@1");
    let told = serde_json::to_string(&found).expect("JSON");
    assert!(!told.contains("a secret"), "what is sent to a run isn't told");
    let retried = AuditFilter { action: Some("run.retried".to_owned()), ..AuditFilter::default() };
    let [retried] = &*list(&world, retried).await else { panic!("one retry") };
    assert_eq!((&*retried.resource_id, &retried.details["from"]), ("run_retry", &json!(run)));
    let failed = AuditFilter { result: Some(AuditResult::Failed), ..AuditFilter::default() };
    let [failed] = &*list(&world, failed).await else { panic!("one failure") };
    assert_eq!((&*failed.action, &failed.details["code"]), ("trigger.fired", &json!("paused")));
    // Of the outcomes that came together, the one whose attempt was given a secret.
    let given = json!({"actor": "coordinator",
        "secrets": [{"token": 9, "attempt": 2, "names": ["A_KEY", "B_KEY"]}]});
    let failed = |token| {
        json!({"type": "task_failed", "token": token, "attempt": 2,
            "error": {"code": "c", "message": "m", "kind": "transient"}})
    };
    let given = given.to_string();
    act(&world, stream, sequence, &given, &[failed(8), failed(9)]).await;
    act(&world, stream, sequence + 2, &engine, &[failed(9)]).await;
    let used = AuditFilter { action: Some("secret.used".to_owned()), ..AuditFilter::default() };
    let [used] = &*list(&world, used).await else { panic!("one use") };
    assert_eq!((&*used.resource_id, used.run_id.as_ref()), ("A_KEY,B_KEY", Some(&run)));
    assert_eq!((&used.details["token"], &used.details["attempt"]), (&json!(9), &json!(2)));
    let log = ours().to_string();
    let read = json!({"type": "audit_read", "filter": {"actor": "key_bob"}});
    act(&world, ("access", "acc_1"), 0, &ann, &[read]).await;
    let exported = json!({"type": "audit_exported", "to": 7, "all_workspaces": true});
    act(&world, ("access", "acc_2"), 0, &ann, &[exported]).await;
    let reads = AuditFilter { resource_id: Some(log), ..AuditFilter::default() };
    let [export, read] = &*list(&world, reads).await else { panic!("two reads") };
    assert_eq!(
        (&*read.action, &read.details["filter"]["actor"]),
        ("audit.read", &json!("key_bob"))
    );
    assert_eq!((&*export.action, &export.details["to"]), ("audit.exported", &json!(7)));
    // Those six, the secret, the two reads, the retry, and what the trigger failed to do: nothing of the child.
    assert_eq!(list(&world, AuditFilter::default()).await.len(), 11);
}

async fn a_hold_is_seen_at_its_run_and_told_with_who_wants_it(storage: Storage) {
    let world = World::new(storage).await;
    let run = run_id(1);
    let id = run.to_string();
    world.run(run, 0, &[started(run, json!({}), &[])]).await;
    let held = json!({"type": "run_held", "reason": "case 4711"});
    let at = act(&world, ("hold", &id), 0, &asked_by("key_ann"), &[held]).await;
    let view = RunQueries::get(&*world.views, ours(), run, Some(at)).await.expect("there");
    let hold = view.held.expect("a hold");
    assert_eq!((&*hold.by, &*hold.reason), ("key_ann", "case 4711"));
    // Events of the run leave it where it is.
    let at = world.run(run, 1, &[Event::RunCompleted { output: json!(1) }]).await;
    let view = RunQueries::get(&*world.views, ours(), run, Some(at)).await.expect("there");
    assert_eq!(view.held, Some(hold));
    let released = json!({"type": "run_released"});
    let at = act(&world, ("hold", &id), 1, &asked_by("key_bob"), &[released]).await;
    let view = RunQueries::get(&*world.views, ours(), run, Some(at)).await.expect("there");
    assert_eq!(view.held, None);
    let of_run = AuditFilter { run_id: Some(id), ..AuditFilter::default() };
    let entries = list(&world, of_run).await;
    let entries = &entries[..2];
    assert_eq!(actions(entries), [("key_bob", "run.released"), ("key_ann", "run.held")]);
    assert_eq!(entries[1].details["reason"], "case 4711");
}

async fn pages_follow_each_other_and_filters_narrow(storage: Storage) {
    let world = World::new(storage).await;
    for number in 0..7 {
        let run = run_id(number).to_string();
        let begun = serde_json::to_value(started(run_id(number), json!({}), &[])).expect("JSON");
        let actor = if number % 2 == 0 { "key_even" } else { "key_odd" };
        act(&world, ("run", &run), 0, &asked_by(actor), &[begun]).await;
    }
    world.caught_up().await;
    let actor = Some("key_even".to_owned());
    for (filter, expected) in [
        (AuditFilter::default(), 7),
        (AuditFilter { actor, ..AuditFilter::default() }, 4),
        (AuditFilter { before: Some(moment(0)), ..AuditFilter::default() }, 0),
        (AuditFilter { after: Some(moment(0)), ..AuditFilter::default() }, 7),
        (AuditFilter { after: Some(moment(1)), ..AuditFilter::default() }, 0),
        (AuditFilter { resource_type: Some("workflow".to_owned()), ..AuditFilter::default() }, 0),
        (AuditFilter { resource_id: Some(run_id(3).to_string()), ..AuditFilter::default() }, 1),
    ] {
        let (mut positions, mut cursor) = (Vec::new(), None);
        loop {
            let page = PageRequest { limit: 2, cursor, min_position: None };
            let page = AuditQueries::list(&*world.views, ours(), filter.clone(), page).await;
            let page = page.expect("a page");
            positions.extend(page.items.iter().map(|entry| entry.position));
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(positions.len(), expected, "{filter:?}");
        assert!(positions.is_sorted_by(|newer, older| newer > older), "{positions:?}");
    }
    let page =
        AuditQueries::list(&*world.views, theirs(), AuditFilter::default(), PageRequest::default());
    assert_eq!(page.await.expect("a page").items, []);
}

async fn refusals_and_secrets_of_webhooks_are_told_with_their_number(storage: Storage) {
    let world = World::new(storage).await;
    let times = json!({"count": 3, "first_at": "2026-01-01T00:00:00Z",
        "last_at": "2026-01-01T00:00:40Z"});
    let with_times = |event: Value| {
        let mut event = event;
        let members = event.as_object_mut().expect("an object");
        members.extend(times.as_object().expect("an object").clone());
        event
    };
    let gate = format!("{}.4", run_id(1));
    let refused = with_times(json!({"type": "access_refused", "code": "self_approval",
        "method": "POST", "route": "/api/v1/gates/{id}/answers", "target": gate}));
    let stranger = with_times(json!({"type": "access_refused", "code": "unauthenticated",
        "reason": "wrong_secret", "method": "GET", "route": "/api/v1/runs", "key": "key_1"}));
    let used = with_times(json!({"type": "webhook_secrets_used", "trigger": "order",
        "workflow_id": "wf_1", "names": ["NEW", "OLD"]}));
    let left_out = with_times(json!({"type": "accesses_left_out", "of": "refusals_of_strangers"}));
    let all = [(refused, "key_1"), (stranger, "unknown"), (used, "webhook"), (left_out, "unknown")];
    for (number, (event, actor)) in all.into_iter().enumerate() {
        act(&world, ("access", &format!("acc_{number}")), 0, &asked_by(actor), &[event]).await;
    }
    let result = Some(AuditResult::Refused);
    let refused = list(&world, AuditFilter { result, ..AuditFilter::default() }).await;
    let seen: Vec<_> = refused.iter().map(|entry| (&*entry.actor, &*entry.resource_id)).collect();
    let expected = [("unknown", "others"), ("unknown", "/api/v1/runs"), ("key_1", &*gate)];
    assert_eq!(seen, expected);
    assert!(refused.iter().all(|entry| entry.action == "request.refused"));
    assert!(refused.iter().all(|entry| entry.details["count"] == 3));
    let key = (&refused[1].details["key"], &refused[1].details["reason"]);
    assert_eq!(key, (&json!("key_1"), &json!("wrong_secret")));
    let run = run_id(1).to_string();
    let of_run = AuditFilter { run_id: Some(run.clone()), ..AuditFilter::default() };
    let of_run = list(&world, of_run).await;
    assert_eq!((of_run.len(), &of_run[0].run_id), (1, &Some(run)), "a refusal at its gate");
    let used = AuditFilter { action: Some("secret.used".into()), ..AuditFilter::default() };
    let used = list(&world, used).await.pop().expect("an entry");
    assert_eq!((&*used.resource_id, used.result), ("NEW,OLD", AuditResult::Done));
    assert_eq!(used.details["trigger"], "order");
}

on_both_storages!(
    a_hold_is_seen_at_its_run_and_told_with_who_wants_it,
    refusals_and_secrets_of_webhooks_are_told_with_their_number,
    what_becomes_of_a_resource_is_told_with_what_was_before,
    what_is_done_to_runs_is_told_and_what_they_do_is_not,
    pages_follow_each_other_and_filters_narrow,
);
