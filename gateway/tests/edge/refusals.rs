//! Refusals are told to the write side beside the answers: counted, bounded, and by whom.

use std::time::Duration;

use domain::access::{Crowd, Event, Refusal};
use domain::ids::{ApiKeyId, WorkspaceId};
use domain::resource::Scope;
use gateway::AuthConfig;
use protocol::{Command, CommandEnvelope, Rejection, RejectionKind};

use crate::access::grant;
use crate::fakes::{Client, home, run_id};

fn keys() -> Client {
    Client::new(AuthConfig::Keys { administrator: None })
}

/// What was told of refusals, once it is so many; in paused time.
async fn told(client: &Client, count: usize) -> Vec<(CommandEnvelope, Event)> {
    let seen = || {
        let commands = client.world.commands.lock().expect("lock");
        let events = commands.iter().filter_map(|envelope| match &envelope.command {
            Command::RecordAccess(event) => Some((envelope.clone(), event.clone())),
            _ => None,
        });
        events.collect::<Vec<_>>()
    };
    for _ in 0..300 {
        if seen().len() >= count {
            break;
        }
        pass(1).await;
    }
    let seen = seen();
    assert!(seen.len() >= count, "{seen:?}");
    seen
}

/// Lets so many seconds pass, and what waits for them go on.
async fn pass(seconds: u64) {
    for _ in 0..seconds {
        tokio::time::advance(Duration::from_secs(1)).await;
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
    }
}

fn refusal(event: &Event) -> &Refusal {
    let Event::AccessRefused(refusal) = event else { panic!("{event:?}") };
    refusal
}

#[tokio::test(start_paused = true)]
async fn who_is_refused_what_is_told_and_why_it_isnt_answered() {
    let client = keys();
    let (good, old) = (grant(&client, home(), &[Scope::Read], None), {
        grant(&client, home(), &[Scope::Read, Scope::Run], Some(-1))
    });
    let elsewhere = WorkspaceId::derived("", "elsewhere");
    let other = grant(&client, elsewhere, &[Scope::Read], None);
    // The right key with a wrong secret: the last character is another one of the alphabet.
    let wrong =
        format!("{}{}", &other[..other.len() - 2], if other.ends_with("0g") { "1g" } else { "0g" });
    let unknown = good.replace(&good["Bearer wonder_".len()..][..26], "00000000000000000000000000");
    let path = "/api/v1/projects";
    for key in [None, Some("Bearer sk-abc"), Some(&*unknown), Some(&*wrong), Some(&*old)] {
        let headers: Vec<_> = key.map(|key| ("authorization", key)).into_iter().collect();
        let answer = client.call("GET", path, &headers, "").await;
        assert_eq!((answer.status.as_u16(), &*answer.code()), (401, "unauthenticated"), "{key:?}");
        assert_eq!(answer.json()["detail"], "send authorization: Bearer with a valid api key");
    }
    let told_of = told(&client, 5).await;
    let why: Vec<_> = told_of.iter().map(|(_, event)| refusal(event).reason.clone()).collect();
    let of = |why: &str| Some(why.to_owned());
    let mut sorted = why.clone();
    sorted.sort();
    let all = ["expired", "no_key", "not_a_key", "unknown_key", "wrong_secret"].map(of);
    assert_eq!(sorted, all);
    let find = |reason: &str| {
        let is_it = |(_, event): &&(_, _)| refusal(event).reason == of(reason);
        told_of.iter().find(is_it).expect(reason)
    };
    let (envelope, event) = find("wrong_secret");
    assert_eq!((envelope.workspace_id, &*envelope.actor.0), (elsewhere, "unknown"));
    let id = ApiKeyId::derived(&elsewhere.to_string(), &format!("{:?}None", [Scope::Read]));
    assert_eq!(refusal(event).key, Some(id.to_string()));
    let (envelope, event) = find("not_a_key");
    assert!(envelope.workspace_id.bits().is_nil(), "the write side knows whose concern it is");
    assert_eq!((&refusal(event).key, &*refusal(event).route), (&None, path));
    assert!(!format!("{told_of:?}").contains("sk-abc"), "it may be a secret elsewhere");
    assert_eq!(find("expired").0.workspace_id, home());

    let cancel = format!("/api/v1/runs/{}/cancel", run_id());
    let answer = client.call("POST", &cancel, &[("authorization", &good)], "").await;
    assert_eq!(answer.status, 403);
    let (envelope, event) = told(&client, 6).await.pop().expect("one");
    assert!(envelope.actor.0.starts_with("key_"), "{envelope:?}");
    let refused = refusal(&event);
    assert_eq!((&*refused.code, &*refused.method), ("forbidden", "POST"));
    assert_eq!(refused.route, "/api/v1/runs/{id}/cancel");
    assert_eq!(refused.target, Some(run_id().to_string()));
    assert_eq!((refused.times.count, refused.times.first_at), (1, refused.times.last_at));
    // What was wrong with the request isn't of that sort, nor is what isn't there.
    for path in ["/api/v1/projects?who=me", "/api/v1/nothing"] {
        client.call("GET", path, &[("authorization", &good)], "").await;
    }
    pass(200).await;
    assert_eq!(told(&client, 6).await.len(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_refusals_is_a_bounded_number_of_events_and_crowds_nobody_out() {
    let client = keys();
    let key = grant(&client, home(), &[Scope::Read], None);
    for number in 0..500 {
        let id = ApiKeyId::derived("flood", &number.to_string()).to_string();
        let token = format!("Bearer wonder_{}_{}", &id[4..], "0".repeat(52));
        client.call("GET", "/api/v1/runs", &[("authorization", &token)], "").await;
    }
    for _ in 0..9 {
        let headers = [("authorization", &*key)];
        assert_eq!(client.call("GET", "/api/v1/audit", &headers, "").await.status, 403);
    }
    pass(130).await;
    let told = told(&client, 1).await;
    assert!(told.len() <= 8 + 1 + 2, "{}", told.len());
    let mut counts = (0, 0, 0);
    for (_, event) in &told {
        match event {
            Event::AccessRefused(refusal) if refusal.code == "forbidden" => {
                counts.0 += refusal.times.count;
            }
            Event::AccessRefused(refusal) => counts.1 += refusal.times.count,
            Event::AccessesLeftOut { of: Crowd::RefusalsOfStrangers, times } => {
                counts.2 += times.count;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(counts, (9, 8, 492));
}

#[tokio::test(start_paused = true)]
async fn changes_that_were_tried_and_failed_are_told_and_reads_are_not() {
    let client = keys();
    let key = grant(&client, home(), &[Scope::Read, Scope::Run], None);
    let headers = [("authorization", &*key), ("content-type", "application/json")];
    let signal = format!("/api/v1/runs/{}/signals/go", run_id());
    for _ in 0..5 {
        let answer = client.call("POST", "/api/v1/runs", &headers, "{").await;
        assert_eq!((answer.status.as_u16(), &*answer.code()), (400, "invalid_json"));
    }
    let kinds = [
        (RejectionKind::NotFound, 404),
        (RejectionKind::Conflict, 409),
        (RejectionKind::Invalid, 422),
        (RejectionKind::Overloaded, 429),
        (RejectionKind::Unavailable, 503),
    ];
    for (kind, status) in kinds {
        *client.world.refuse.lock().expect("lock") =
            Some(Rejection::new(kind, "of_a_test", "it is refused"));
        let answer = client.call("POST", &signal, &headers, "{}").await;
        *client.world.refuse.lock().expect("lock") = None;
        assert_eq!(answer.status, status);
    }
    // A webhook is a command of somebody whom nobody knows.
    let hook = "/api/v1/hooks/wf_1/order";
    assert_eq!(client.call("POST", hook, &[], "").await.status, 404);
    // Reads, also those that come as a POST, and what has no route.
    for (verb, path) in [
        ("GET", "/api/v1/projects/nobody"),
        ("GET", "/api/v1/runs?who=me"),
        ("POST", "/api/v1/runs/nobody/verify"),
        ("POST", "/api/v1/nothing"),
    ] {
        let answer = client.call(verb, path, &headers, "{").await;
        assert!(answer.status.is_client_error() && answer.status != 403, "{path}");
    }
    pass(130).await;
    let told = told(&client, 3).await;
    let mut seen = std::collections::BTreeMap::new();
    for (envelope, event) in &told {
        let Refusal { code, route, target, reason, times, .. } = refusal(event);
        let is_known = envelope.actor.0.starts_with("key_");
        assert_eq!((envelope.workspace_id == home(), reason), (is_known, &None), "{event:?}");
        let target = target.as_deref().unwrap_or_default().to_owned();
        *seen.entry((&**code, &**route, target)).or_insert(0) += times.count;
    }
    let of_run = "/api/v1/runs/{id}/signals/{name}";
    let expected = [
        (("invalid_json", "/api/v1/runs", String::new()), 5),
        (("not_found", "/api/v1/hooks/{id}/{trigger}", "wf_1".to_owned()), 1),
        (("of_a_test", of_run, run_id().to_string()), 4),
    ];
    assert_eq!(seen, expected.into(), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn failed_commands_are_bounded_and_hide_no_attempt_on_what_nobody_may() {
    let client = keys();
    let key = grant(&client, home(), &[Scope::Run], None);
    let headers = [("authorization", &*key), ("content-type", "application/json")];
    for number in 0..300 {
        let path = format!("/api/v1/runs/nobody-{number}/cancel");
        let answer = client.call("POST", &path, &headers, "").await;
        assert!(matches!(answer.status.as_u16(), 400 | 404), "{}", answer.status);
        client.call("POST", &format!("/api/v1/hooks/wf_{number}/order"), &[], "").await;
    }
    assert_eq!(client.call("GET", "/api/v1/audit", &headers, "").await.status, 403);
    assert_eq!(client.call("GET", "/api/v1/audit", &[], "").await.status, 401);
    pass(130).await;
    let told = told(&client, 1).await;
    assert!(told.len() <= 32 + 8 + 2 + 2, "{}", told.len());
    let (mut apart, mut others, mut rights) = (0, Vec::new(), Vec::new());
    for (_, event) in &told {
        match event {
            Event::AccessRefused(refusal) if refusal.method == "GET" => rights.push(&*refusal.code),
            Event::AccessRefused(refusal) => apart += refusal.times.count,
            Event::AccessesLeftOut { of, times } => others.push((*of, times.count)),
            other => panic!("{other:?}"),
        }
    }
    others.sort();
    rights.sort();
    let crowds = [(Crowd::RefusedCommands, 268), (Crowd::RefusedCommandsOfStrangers, 292)];
    assert_eq!((apart, &*others), (32 + 8, &crowds[..]));
    assert_eq!(rights, ["forbidden", "unauthenticated"]);
}

#[tokio::test(start_paused = true)]
async fn no_answer_waits_for_the_record_and_that_is_made_once_it_can_be() {
    let client = keys();
    let full = Rejection::new(RejectionKind::Unavailable, "journal_full", "no room");
    *client.world.refuse.lock().expect("lock") = Some(full);
    for _ in 0..3 {
        assert_eq!(client.get("/api/v1/runs").await.status, 401);
    }
    pass(10).await;
    *client.world.refuse.lock().expect("lock") = None;
    let told = told(&client, 1).await;
    assert_eq!(refusal(&told[0].1).times.count, 3);
}
