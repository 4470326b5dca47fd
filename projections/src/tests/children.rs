//! Child runs in lists, timelines and what is waited for.

use protocol::{PageRequest, RunFilter, RunQueries};

use super::*;

/// The start of a child.
pub(super) fn begun(child: RunId, parent: RunId, root: RunId) -> Event {
    let Event::RunStarted(mut first) = started(child, json!(1), &[("team", "red")]) else {
        unreachable!("it is a start")
    };
    let above = json!({"run_id": parent, "token": 1, "root_run_id": root, "depth": 1});
    first.parent = Some(serde_json::from_value(above).expect("a parent"));
    Event::RunStarted(first)
}

fn asks(child: RunId, deadline: Value) -> Event {
    event(json!({"type": "child_started", "token": 1, "run_id": child,
        "definition": "helper@2", "deadline": deadline}))
}

async fn children_name_their_parent_and_are_listed_by_it(storage: Storage) {
    let world = World::new(storage).await;
    let (top, middle, low) = (run_id(1), run_id(2), run_id(3));
    world.run(top, 0, &[started(top, json!(1), &[]), asks(middle, Value::Null)]).await;
    world.run(middle, 0, &[begun(middle, top, top), asks(low, Value::Null)]).await;
    let position = world.run(low, 0, &[begun(low, middle, top)]).await;
    let view = |run| RunQueries::get(&*world.views, ours(), run, Some(position));
    let shown = view(low).await.expect("there");
    assert_eq!(shown.parent_run_id, Some(middle.to_string()));
    assert_eq!(shown.root_run_id, Some(top.to_string()));
    let shown = view(top).await.expect("there");
    assert_eq!((shown.parent_run_id, shown.root_run_id), (None, None));
    for (parent, wanted) in [(top, vec![middle]), (middle, vec![low]), (low, vec![])] {
        let filter = RunFilter { parent: Some(parent.to_string()), ..RunFilter::default() };
        let page = RunQueries::list(&*world.views, ours(), filter, PageRequest::default()).await;
        let found: Vec<_> = page.expect("a page").items.into_iter().map(|run| run.id).collect();
        let wanted: Vec<_> = wanted.into_iter().map(|run: RunId| run.to_string()).collect();
        assert_eq!(found, wanted);
    }
    let compared = world.views.compare("runs", |_| {}).await.expect("it compares");
    assert_eq!(compared.difference, None);
}

async fn a_parent_shows_the_child_that_it_waits_for(storage: Storage) {
    let world = World::new(storage).await;
    let run = run_id(1);
    world.run(run, 0, &[started(run, json!(1), &[]), asks(run.child(1), json!(moment(50)))]).await;
    let child = Some(run.child(1).to_string());
    let waiting = RunQueries::waiting(&*world.views, ours(), run).await.expect("a run");
    let item = &waiting.items[0];
    assert_eq!((waiting.status.as_str(), item.what.as_str()), ("waiting", "child"));
    assert_eq!((&item.child_run_id, item.until), (&child, Some(moment(50))));
    assert!(item.by.contains("helper@2"), "{}", item.by);
    let entry = async || {
        let entries = RunQueries::timeline(&*world.views, ours(), run).await;
        entries.expect("a run").remove(0)
    };
    let first = entry().await;
    assert_eq!((first.status.as_str(), &first.child_run_id), ("awaiting_child", &child));
    let failed = json!({"type": "child_ended", "token": 1, "run_id": run.child(1),
        "status": "failed", "error": {"code": "child_failed", "message": "x", "kind": "permanent"}});
    world.run(run, 2, &[event(failed)]).await;
    let first = entry().await;
    assert_eq!((first.status.as_str(), &first.child_run_id), ("failed", &child));
    assert_eq!(first.error.map(|error| error.code).as_deref(), Some("child_failed"));
}

on_both_storages!(
    children_name_their_parent_and_are_listed_by_it,
    a_parent_shows_the_child_that_it_waits_for,
);
