//! Resources: rows, versions, archive, secrets.

use domain::resource::{Event as ResourceEvent, Kind, Spec};
use futures::StreamExt;
use protocol::{EventFilter, Events, PageRequest, RejectionKind, ResourceFilter, ResourceQueries};

use super::*;

fn spec(json: Value) -> Box<Spec> {
    Box::new(serde_json::from_value(json).expect("a spec"))
}

fn project(name: &str, text: &str) -> Box<Spec> {
    spec(json!({"kind": "project", "spec": {"name": name, "description": text}}))
}

fn filter(kind: Kind) -> ResourceFilter {
    ResourceFilter { kind, project_id: None, name: None, archived: false }
}

async fn a_resource_shows_its_newest_revision(storage: Storage) {
    let world = World::new(storage).await;
    let long = "d".repeat(100_000);
    let stream = ("project", "prj_1");
    let created = ResourceEvent::Created { spec: project("alpha", "old"), revision: 1 };
    world.append(stream, ours(), 0, &[created]).await;
    let revised = ResourceEvent::Revised { spec: project("alpha", &long), revision: 2 };
    let position = world.append(stream, ours(), 1, &[revised]).await;
    let get =
        |workspace, at| ResourceQueries::get(&*world.views, workspace, Kind::Project, "prj_1", at);
    let view = get(Some(ours()), Some(position)).await.expect("there");
    assert_eq!((view.version, &*view.name, view.archived), (2, "alpha", false));
    assert_eq!(view.spec["description"], json!(long));
    assert_eq!((view.created_at, view.updated_at), (moment(0), moment(1)));
    let hidden = get(Some(theirs()), None).await.expect_err("not theirs");
    assert_eq!(hidden.kind, RejectionKind::NotFound);

    let position = world.append(stream, ours(), 2, &[ResourceEvent::Archived]).await;
    assert!(get(Some(ours()), Some(position)).await.expect("there").archived);
    let list = |archived| {
        let filter = ResourceFilter { archived, ..filter(Kind::Project) };
        ResourceQueries::list(&*world.views, Some(ours()), filter, PageRequest::default())
    };
    assert_eq!(list(false).await.expect("a page").items.len(), 0);
    assert_eq!(list(true).await.expect("a page").items.len(), 1);
}

async fn a_keys_hash_is_for_sign_in_only(storage: Storage) {
    let world = World::new(storage).await;
    let key = spec(json!({"kind": "api_key", "spec": {"workspace_id": ours(), "name": "ci",
        "secret_hash": "5ec4e7", "scopes": ["read"]}}));
    let created = ResourceEvent::Created { spec: key, revision: 1 };
    let position = world.append(("api_key", "key_1"), ours(), 0, &[created]).await;
    let get = |workspace| {
        ResourceQueries::get(&*world.views, workspace, Kind::ApiKey, "key_1", Some(position))
    };
    assert_eq!(get(None).await.expect("there").spec["secret_hash"], "5ec4e7");
    assert_eq!(get(Some(ours())).await.expect("there").spec.get("secret_hash"), None);
    for workspace in [None, Some(ours())] {
        let page = PageRequest::default();
        let list = ResourceQueries::list(&*world.views, workspace, filter(Kind::ApiKey), page);
        assert_eq!(list.await.expect("a page").items[0].spec.get("secret_hash"), None);
    }
    let page = world.views.page(EventFilter::default(), None, 10).await.expect("a page");
    assert!(!serde_json::to_string(&page).expect("JSON").contains("5ec4e7"));
    let mut stream = world.views.follow(EventFilter::default(), None).await.expect("a stream");
    let first = stream.next().await.expect("one").expect("an event");
    assert!(!serde_json::to_string(&first).expect("JSON").contains("5ec4e7"));
}

async fn pages_show_each_resource_once(storage: Storage) {
    let world = World::new(storage).await;
    for number in 0..7 {
        let name = format!("p{number}");
        let created = ResourceEvent::Created { spec: project(&name, ""), revision: 1 };
        world.append(("project", &format!("prj_{number}")), ours(), 0, &[created]).await;
    }
    world.caught_up().await;
    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let page = PageRequest { limit: 3, cursor, min_position: None };
        let views = &*world.views;
        let page = ResourceQueries::list(views, None, filter(Kind::Project), page).await;
        let page = page.expect("a page");
        seen.extend(page.items.into_iter().map(|view| view.id));
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    let wanted: Vec<String> = (0..7).rev().map(|number| format!("prj_{number}")).collect();
    assert_eq!(seen, wanted);
}

on_both_storages!(
    a_resource_shows_its_newest_revision,
    a_keys_hash_is_for_sign_in_only,
    pages_show_each_resource_once,
);
