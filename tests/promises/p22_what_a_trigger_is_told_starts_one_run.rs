//! Promise 22: what a trigger is told starts one run, whoever tells it how often, and whoever dies.
//!
//! It fails where a webhook is remembered by anything that is forgotten, where its signature isn't
//! over the bytes that came, where two coordinators come to the same time, and where what a trigger
//! is done with is kept in memory alone.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use domain::run::Event;
use domain::run::event::TriggeredBy;
use domain::trigger::webhook::Secret;
use domain::trigger::{self, Schedule};
use reqwest::Method;
use serde_json::{Value, json};
use system_tests::{Client, Platform, Records, Setting, Shape, wait_for};

mod by_message;
mod by_the_clock;
mod in_turn;

system_tests::in_both_settings!(
    a_webhook_starts_one_run_however_often_it_comes,
    a_webhook_that_is_not_signed_as_it_came_starts_nothing,
    a_schedule_starts_one_run_for_each_time_over_kills,
    an_event_starts_one_run_over_kills,
    runs_that_start_each_other_end,
);

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NEW_SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
/// Runs that an event is to follow.
const RUNS: usize = 30;

async fn platform(setting: Setting) -> Platform {
    let shape = Shape::from(setting)
        .with_variable("SHOP_HOOK", SECRET)
        .with_variable("SHOP_HOOK_NEW", NEW_SECRET);
    Platform::start_as(env!("CARGO_BIN_EXE_wonder"), shape).await
}

/// A definition that takes any input and ends by itself with it.
fn echo(name: &str) -> Value {
    json!({
        "name": name, "start": "keep",
        "nodes": {"keep": {"compute": {"state.seen": "${input}"}}},
        "transitions": [],
        "output": {"seen": "${state.seen}"},
    })
}

/// Makes a workflow of the default project with triggers; answers its id.
async fn workflow(client: &Client, name: &str, definition: &Value, triggers: Value) -> String {
    let definition = client.post("/workflow-definitions", definition).await.ok();
    let projects = client.get("/projects?name=default").await;
    let body = json!({
        "project_id": projects["items"][0]["id"], "name": name,
        "definition_id": definition["id"], "triggers": triggers,
    });
    let made = client.post("/workflows", &body).await.ok();
    let (id, position) = (made["id"].as_str().expect("an id"), &made["position"]);
    // Reads know it from here on.
    client.get(&format!("/workflows/{id}/triggers?min_position={position}")).await;
    id.to_owned()
}

async fn change(client: &Client, id: &str, patch: &Value) {
    let request = client.request(Method::PATCH, &format!("/workflows/{id}")).json(patch);
    client.send(request).await.expect("the platform answers").ok();
}

async fn trigger(client: &Client, workflow: &str) -> Value {
    let mut list = client.get(&format!("/workflows/{workflow}/triggers")).await;
    list["items"][0].take()
}

/// A delivery, as a sender makes it.
#[derive(Clone)]
struct Delivery<'a> {
    id: &'a str,
    timestamp: i64,
    secret: &'a str,
    signed: &'a str,
    body: &'a str,
}

impl<'a> Delivery<'a> {
    fn of(id: &'a str, body: &'a str) -> Self {
        Self { id, timestamp: Utc::now().timestamp(), secret: SECRET, signed: body, body }
    }

    async fn send(&self, client: &Client, workflow: &str) -> (u16, Value) {
        let secret = Secret::parse(self.secret).expect("a secret");
        let signature = secret.sign(self.id, self.timestamp, self.signed.as_bytes());
        let request = client
            .request(Method::POST, &format!("/hooks/{workflow}/order"))
            .header("content-type", "application/json")
            .header("x-shop", "north")
            .header("webhook-id", self.id)
            .header("webhook-timestamp", self.timestamp.to_string())
            .header("webhook-signature", signature)
            .body(self.body.to_owned());
        let answer = client.send(request).await.expect("the platform answers");
        (answer.status, answer.body)
    }

    async fn run_id(&self, client: &Client, workflow: &str) -> String {
        let (status, body) = self.send(client, workflow).await;
        assert_eq!(status, 202, "{body}");
        body["run_id"].as_str().expect("a run's id").to_owned()
    }
}

/// What each run was started by, by its id.
fn triggered(records: &Records) -> BTreeMap<String, TriggeredBy> {
    let mut found = BTreeMap::new();
    for run_id in records.run_ids() {
        let first = records.fold(&run_id).into_iter().next().expect("a first event");
        if let Event::RunStarted(started) = first.event
            && let Some(by) = started.trigger
        {
            found.insert(run_id, by);
        }
    }
    found
}

/// The keys that triggers say they are done with, each with its run.
fn fired(records: &Records) -> Vec<(String, String)> {
    let events = records.events.iter().filter(|event| &*event.event_type == "trigger_fired");
    let read = |event| match records.decode(event).expect("an event of a trigger") {
        trigger::Event::TriggerFired { key, run_id, .. } => (run_id.to_string(), key),
        other => panic!("{other:?}"),
    };
    events.map(read).collect()
}

/// Each run that triggers by time and event started is one that they are done with, once.
fn check(records: &Records) -> BTreeMap<String, TriggeredBy> {
    records.check();
    let started = triggered(records);
    let fired = fired(records);
    let once: BTreeSet<_> = fired.iter().cloned().collect();
    assert_eq!(once.len(), fired.len(), "a trigger is done with something twice");
    let keys: BTreeSet<_> =
        started.values().map(|by| (by.workflow_id, &by.name, &by.key)).collect();
    assert_eq!(keys.len(), started.len(), "something started two runs");
    for (run_id, key) in &fired {
        assert_eq!(started.get(run_id).map(|by| &by.key), Some(key), "{run_id}");
    }
    started
}

async fn a_webhook_starts_one_run_however_often_it_comes(setting: Setting) {
    let mut platform = platform(setting).await;
    let client = platform.client();
    let triggers = json!({"order": {
        "webhook": {"secret_envs": ["SHOP_HOOK", "SHOP_HOOK_NEW"], "headers": ["x-shop"]},
        "input": {"order": "${trigger.body.order}", "shop": "${trigger.headers['x-shop']}"},
        "labels": {"from": "shop"},
    }});
    let id = workflow(&client, "orders", &echo("orders"), triggers).await;
    let delivery = Delivery::of("msg_1", r#"{"order": 7}"#);
    let run_id = delivery.run_id(&client, &id).await;
    let view = client.end_of(&run_id).await;
    assert_eq!(view["status"], "completed", "{view}");
    assert_eq!(view["output"]["seen"], json!({"order": 7, "shop": "north"}));
    assert_eq!(view["labels"], json!({"from": "shop"}));
    assert_eq!(view["trigger"]["kind"], "webhook");
    assert_eq!(view["trigger"]["key"], "msg_1");
    // Again, at once and after everything was killed; signed anew and with another secret.
    assert_eq!(delivery.run_id(&client, &id).await, run_id);
    platform.kill_9().await;
    platform.restart().await;
    let again = Delivery { secret: NEW_SECRET, ..Delivery::of("msg_1", r#"{"order": 7}"#) };
    assert_eq!(again.run_id(&client, &id).await, run_id);
    // Many at the same time.
    let other = Delivery::of("msg_2", r#"{"order": 8}"#);
    let answers = (0..20).map(|_| other.run_id(&client, &id));
    let runs: BTreeSet<_> = futures::future::join_all(answers).await.into_iter().collect();
    assert_eq!(runs.len(), 1, "{runs:?}");
    // What is known stays known, also where the trigger is out of use.
    change(&client, &id, &json!({"triggers": {"order": {"enabled": false}}})).await;
    assert_eq!(delivery.run_id(&client, &id).await, run_id);
    let (status, body) = Delivery::of("msg_3", r#"{"order": 9}"#).send(&client, &id).await;
    assert_eq!((status, &body["code"]), (404, &json!("trigger_disabled")), "{body}");
    let shown = wait_for("the read model to know both runs", || async {
        let shown = trigger(&client, &id).await;
        (shown["runs"] == 2 && shown["enabled"] == false).then_some(shown)
    })
    .await;
    assert_eq!(shown["failures"], 0);
    platform.stop().await;
    let records = platform.records().await;
    assert_eq!(check(&records).len(), 2);
    assert!(!records.export().contains("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), "a secret is stored");
}

async fn a_webhook_that_is_not_signed_as_it_came_starts_nothing(setting: Setting) {
    let mut platform = platform(setting).await;
    let client = platform.client();
    let mut definition = echo("strict");
    definition["input_schema"] = json!({"type": "object", "required": ["order"],
        "properties": {"order": {"type": "integer"}}});
    let triggers = json!({"order": {"webhook": {"secret_envs": ["SHOP_HOOK"]},
        "input": "${trigger.body}"}});
    let id = workflow(&client, "strict", &definition, triggers).await;
    let good = Delivery::of("msg_1", r#"{"order": 7}"#);
    let late = good.timestamp - 301;
    let mut codes = BTreeSet::new();
    for refused in [
        Delivery { body: r#"{"order":7}"#, ..good.clone() },
        Delivery { secret: NEW_SECRET, ..good.clone() },
        Delivery { timestamp: late, ..good.clone() },
        Delivery { timestamp: good.timestamp + 400, ..good.clone() },
        Delivery { id: "a b", ..good.clone() },
    ] {
        let (status, body) = refused.send(&client, &id).await;
        assert_eq!(status, 401, "{body}");
        codes.insert((body["code"].to_string(), body["detail"].to_string()));
    }
    let bare = client.request(Method::POST, &format!("/hooks/{id}/order")).body("{}");
    let bare = client.send(bare).await.expect("the platform answers");
    codes.insert((bare.body["code"].to_string(), bare.body["detail"].to_string()));
    // Nobody learns what was wrong.
    assert_eq!(codes.len(), 1, "{codes:?}");
    assert_eq!(bare.code(), "invalid_signature");
    let path = format!("/hooks/{id}/order");
    let large = client.announce(&path, "application/json", 2 * 1024 * 1024).await;
    assert!(large.starts_with("HTTP/1.1 413"), "{large}");
    let elsewhere = client.request(Method::POST, &format!("/hooks/{id}/other")).body("{}");
    let elsewhere = client.send(elsewhere).await.expect("the platform answers");
    assert_eq!(elsewhere.status, 404);
    assert!(trigger(&client, &id).await["last_error"].is_null(), "a stranger left something");
    // Signed, and yet no run: the sender is told, and so is whoever looks after the workflow.
    let (status, body) = Delivery::of("msg_3", r#"{"order": "x"}"#).send(&client, &id).await;
    assert_eq!((status, &body["code"]), (422, &json!("invalid_input")), "{body}");
    assert_eq!(Delivery::of("msg_4", "no json").send(&client, &id).await.0, 400);
    let shown = wait_for("both failures to be seen", || async {
        let shown = trigger(&client, &id).await;
        (shown["failures"] == 2).then_some(shown)
    })
    .await;
    assert_eq!(shown["last_error"]["code"], "invalid_json");
    assert_eq!(shown["last_error"]["key"], "msg_4");
    // What strangers were refused is known all the same, and which secret that was found out with.
    let told = |query: &'static str, code: Option<&'static str>| {
        let client = client.clone();
        wait_for("the audit log to tell", move || {
            let client = client.clone();
            async move {
                let found = client.get(&format!("/audit?{query}")).await;
                let mut items = found["items"].as_array()?.iter();
                items.find(|item| item["details"]["code"].as_str() == code).cloned()
            }
        })
    };
    for code in ["invalid_signature", "invalid_json", "invalid_input"] {
        let refused = told("result=refused", Some(code)).await;
        let by = (&refused["resource_id"], &refused["actor"]);
        assert_eq!(by, (&json!(id), &json!("unknown")), "{refused}");
    }
    let used = told("action=secret.used", None).await;
    assert_eq!((&used["resource_id"], &used["actor"]), (&json!("SHOP_HOOK"), &json!("webhook")));
    assert_eq!(used["details"]["trigger"], "order", "{used}");
    platform.stop().await;
    assert_eq!(check(&platform.records().await).len(), 0);
}

/// Kills what decides, and starts it again: all of one process, or one coordinator of two.
async fn kill_a_coordinator(platform: &mut Platform, setting: Setting, round: usize) {
    if setting == Setting::Distributed {
        let name = ["coordinator-1", "coordinator-2"][round % 2];
        platform.kill_one(name).await;
        platform.start_one(name).await;
    } else {
        platform.kill_9().await;
        platform.restart().await;
    }
}

async fn a_schedule_starts_one_run_for_each_time_over_kills(setting: Setting) {
    let mut platform = platform(setting).await;
    let client = platform.client();
    let triggers = json!({"tick": {"schedule": {"every": "1s", "missed": "all"},
        "input": {"at": "${trigger.scheduled_at}"}}});
    let id = workflow(&client, "ticks", &echo("ticks"), triggers).await;
    let ticked = |count: u64| {
        let (client, id) = (&client, &id);
        wait_for("more times to have come", move || async move {
            let shown = trigger(client, id).await;
            (shown["runs"].as_u64()? >= count).then_some(shown)
        })
    };
    let mut runs = 2;
    for round in 0..4_usize {
        let shown = ticked(runs).await;
        assert!(shown["next_at"].is_string(), "{shown}");
        // Frozen, the owner of the schedule thinks that it still is, until it is thawed.
        let frozen = ["coordinator-1", "coordinator-2"].get(round.wrapping_sub(2));
        match frozen.filter(|_| setting == Setting::Distributed) {
            Some(name) => {
                platform.freeze(name);
                ticked(runs + 2).await;
                platform.thaw(name);
            }
            None => kill_a_coordinator(&mut platform, setting, round).await,
        }
        runs = trigger(&client, &id).await["runs"].as_u64().expect("a number") + 2;
    }
    let shown = ticked(runs).await;
    let run_id = shown["last_run_id"].as_str().expect("a run's id");
    let view = client.end_of(run_id).await;
    assert_eq!(view["output"]["seen"]["at"], view["trigger"]["key"], "{view}");
    // From here on nothing more comes.
    change(&client, &id, &json!({"triggers": {"tick": {"enabled": false}}})).await;
    platform.stop().await;
    let records = platform.records().await;
    let mut times: Vec<DateTime<Utc>> = check(&records).values().map(|by| by.at).collect();
    times.sort();
    let spec = serde_json::from_value(json!({"every": "1s"})).expect("a schedule");
    let schedule = Schedule::compile(&spec).expect("sound");
    for pair in times.windows(2) {
        assert_eq!(schedule.next_after(pair[0]), Some(pair[1]), "a time was left out");
    }
    assert!(times.len() as u64 >= runs);
    for (run_id, by) in triggered(&records) {
        let started = records.of_run(&run_id)[0].recorded_at;
        assert!(started >= by.at, "{run_id} started before its time");
    }
}

async fn an_event_starts_one_run_over_kills(setting: Setting) {
    let mut platform = platform(setting).await;
    let client = platform.client();
    let source = workflow(&client, "source", &echo("source"), json!({})).await;
    let triggers = json!({"done": {
        "event": {"type": "run_completed", "workflow": "source",
            "where": "${event.data.output.seen.n % 2 == 0}"},
        "input": {"n": "${trigger.event.data.output.seen.n}", "after": "${trigger.event.run_id}"},
    }});
    let id = workflow(&client, "sink", &echo("sink"), triggers).await;
    // A run that isn't of the workflow, and has what the condition reads.
    client.run_to_end(&echo("source"), json!({"n": 2})).await;
    let mut sources = BTreeMap::new();
    for n in 0..RUNS {
        let path = format!("/workflows/{source}/runs");
        let started = client.post(&path, &json!({"input": {"n": n}})).await.ok();
        sources.insert(n, started["id"].as_str().expect("a run's id").to_owned());
        if n % 8 == 4 {
            kill_a_coordinator(&mut platform, setting, n / 8).await;
        }
    }
    wait_for("each event to have its run", || async {
        let shown = trigger(&client, &id).await;
        (shown["runs"].as_u64()? >= RUNS as u64 / 2).then_some(())
    })
    .await;
    client.all_ended().await;
    platform.stop().await;
    let records = platform.records().await;
    let started = check(&records);
    let mut followed = BTreeMap::new();
    for run_id in started.keys() {
        let steps = records.fold(run_id);
        let Event::RunStarted(first) = &steps[0].event else { panic!("{run_id}") };
        let n = first.input["n"].as_u64().expect("a number") as usize;
        assert_eq!(first.input["after"], json!(sources[&n]));
        assert!(followed.insert(n, run_id).is_none(), "{n} twice");
    }
    let even: Vec<usize> = (0..RUNS).filter(|n| n % 2 == 0).collect();
    assert_eq!(followed.into_keys().collect::<Vec<_>>(), even);
}

async fn runs_that_start_each_other_end(setting: Setting) {
    let mut platform = platform(setting).await;
    let client = platform.client();
    let triggers = json!({"again": {"event": {"type": "run_completed", "workflow": "loop"}}});
    let id = workflow(&client, "loop", &echo("loop"), triggers).await;
    client.post(&format!("/workflows/{id}/runs"), &json!({"input": {}})).await.ok();
    let shown = wait_for("the chain to be cut", || async {
        let shown = trigger(&client, &id).await;
        (shown["failures"] == 1).then_some(shown)
    })
    .await;
    assert_eq!(shown["last_error"]["code"], "trigger_chain_too_deep");
    assert_eq!(shown["runs"], 10);
    platform.stop().await;
    let depths: BTreeSet<u32> =
        check(&platform.records().await).values().map(|by| by.depth).collect();
    assert_eq!(depths, (1..=10).collect());
}
