//! Queries: each as its call, and again where no answer comes.

use std::time::Duration;

use domain::resource::Kind;
use protocol::remote::{QUERIES, QueryCall};
use protocol::{
    Cursor, EventFilter, EventPage, Events as _, GateFilter, GateId, GateQueries, GateView, Page,
    PageRequest, RejectionKind, ResourceFilter, ResourceQueries, ResourceView, RunFilter,
    RunQueries, RunView, StateAt, TimelineEntry,
};

use crate::far::{Far, Place, Say, home, no, ok, run_id};

#[tokio::test]
async fn each_query_is_its_call() {
    let place = Place::new();
    let (nats, remote) = (place.nats().await, place.remote().await);
    let cursor = Cursor { epoch: 7, position: 3 };
    let missing = || no(RejectionKind::NotFound, "not_found");
    let page = EventPage { items: Vec::new(), cursor, more: true };
    let script = [
        ok(Page::<ResourceView> { items: Vec::new(), next_cursor: Some("next".to_owned()) }),
        missing(),
        ok(Page::<RunView> { items: Vec::new(), next_cursor: None }),
        missing(),
        missing(),
        ok(Vec::<TimelineEntry>::new()),
        missing(),
        ok(Page::<GateView> { items: Vec::new(), next_cursor: None }),
        missing(),
        ok(page.clone()),
        ok(cursor),
    ];
    let (far, _served) = Far::<QueryCall>::at(&nats, QUERIES, script).await;
    let (workspace_id, run_id, asked) = (home(), run_id(), PageRequest::default());
    let kind = Kind::Project;
    let of_kind = ResourceFilter { kind, project_id: None, name: None, archived: false };
    let resources = ResourceQueries::list(&remote, None, of_kind.clone(), asked.clone()).await;
    assert_eq!(resources.expect("a page").next_cursor.as_deref(), Some("next"));
    let resource = ResourceQueries::get(&remote, Some(workspace_id), kind, "prj_x", Some(4)).await;
    assert_eq!(resource.expect_err("it isn't there").code, "not_found");
    let of_runs = RunFilter { q: Some("text".to_owned()), ..RunFilter::default() };
    let runs = RunQueries::list(&remote, workspace_id, of_runs.clone(), asked.clone()).await;
    assert_eq!(runs.expect("a page").items, []);
    assert!(RunQueries::get(&remote, workspace_id, run_id, Some(5)).await.is_err());
    assert!(remote.state(workspace_id, run_id, StateAt::Sequence(2)).await.is_err());
    assert_eq!(remote.timeline(workspace_id, run_id).await, Ok(Vec::new()));
    assert!(remote.waiting(workspace_id, run_id).await.is_err());
    let of_gates = GateFilter { role: Some("x".to_owned()), ..GateFilter::default() };
    let gates = GateQueries::list(&remote, workspace_id, of_gates.clone(), asked.clone()).await;
    assert_eq!(gates.expect("a page").items, []);
    let gate = GateId { run_id, token: 3 };
    assert!(GateQueries::get(&remote, workspace_id, gate, Some(6)).await.is_err());
    let filter = EventFilter { event_type: Some("x".to_owned()), ..EventFilter::default() };
    assert_eq!(remote.page(filter.clone(), Some(cursor), 10).await, Ok(page));
    assert_eq!(remote.head().await, Ok(cursor));
    let (id, at) = ("prj_x".to_owned(), StateAt::Sequence(2));
    let expected = [
        QueryCall::ListResources { workspace_id: None, filter: of_kind, page: asked.clone() },
        QueryCall::GetResource {
            workspace_id: Some(workspace_id),
            kind,
            id,
            min_position: Some(4),
        },
        QueryCall::ListRuns { workspace_id, filter: of_runs, page: asked.clone() },
        QueryCall::GetRun { workspace_id, run_id, min_position: Some(5) },
        QueryCall::RunState { workspace_id, run_id, at },
        QueryCall::RunTimeline { workspace_id, run_id },
        QueryCall::RunWaiting { workspace_id, run_id },
        QueryCall::ListGates { workspace_id, filter: of_gates, page: asked },
        QueryCall::GetGate { workspace_id, gate, min_position: Some(6) },
        QueryCall::EventPage { filter, after: Some(cursor), limit: 10 },
        QueryCall::EventHead,
    ];
    assert_eq!(far.asked(), expected);
}

#[tokio::test]
async fn a_read_without_an_answer_is_asked_again_and_given_up_as_unavailable() {
    let place = Place::new();
    let (nats, remote) = (place.nats().await, place.remote().await);
    let cursor = Cursor { epoch: 7, position: 3 };
    let (far, _served) = Far::<QueryCall>::at(&nats, QUERIES, [Say::Nothing, ok(cursor)]).await;
    assert_eq!(remote.head().await, Ok(cursor));
    assert_eq!(far.asked().len(), 2);
    let remote = remote.with_patience(Duration::from_millis(200));
    let silence = remote.head().await.expect_err("nobody answers");
    assert_eq!((silence.kind, silence.code.as_str()), (RejectionKind::Unavailable, "unavailable"));
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_is_a_defect_and_not_asked_for_again() {
    let place = Place::new();
    let (nats, remote) = (place.nats().await, place.remote().await);
    let script = [Say::This("{\"Ok\":7}".into())];
    let (far, _served) = Far::<QueryCall>::at(&nats, QUERIES, script).await;
    let defect = remote.head().await.expect_err("a cursor is a text");
    assert_eq!((defect.kind, defect.code.as_str()), (RejectionKind::Internal, "internal"));
    assert_eq!(far.asked().len(), 1);
}

#[tokio::test]
async fn a_page_that_is_too_large_for_the_bus_is_asked_for_in_smaller_parts() {
    let place = Place::new();
    let (nats, remote) = (place.nats().await, place.remote().await);
    let cursor = Cursor { epoch: 7, position: 3 };
    let page = EventPage { items: Vec::new(), cursor, more: true };
    let huge = || ok("x".repeat(17 * 1024 * 1024));
    let script = [huge(), huge(), ok(page.clone()), huge(), huge()];
    let (far, _served) = Far::<QueryCall>::at(&nats, QUERIES, script).await;
    assert_eq!(remote.page(EventFilter::default(), None, 100).await, Ok(page));
    let limits: Vec<_> = far.asked().iter().map(limit_of).collect();
    assert_eq!(limits, [100, 25, 6]);
    let whole = remote.timeline(home(), run_id()).await.expect_err("it can't be parted");
    assert_eq!((whole.kind, whole.code.as_str()), (RejectionKind::TooLarge, "answer_too_large"));
    let one = remote.page(EventFilter::default(), None, 1).await.expect_err("it can't be less");
    assert_eq!(one.code, "answer_too_large");
}

fn limit_of(call: &QueryCall) -> u32 {
    let QueryCall::EventPage { limit, .. } = call else { panic!("{call:?}") };
    *limit
}
