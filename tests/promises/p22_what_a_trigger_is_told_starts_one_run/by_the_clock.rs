//! Times that came while nobody was there, by a clock that the test moves.

use domain::definition::Definition;
use domain::resource::{DefinitionSpec, Kind, Spec, WorkflowSpec};
use protocol::Command;
use system_tests::{World, Writer};

use super::*;

fn hours_on(world: &World, hours: i64) {
    world.clock.advance(TimeDelta::hours(hours));
}

/// Makes a workflow with an hourly trigger; answers its id.
async fn hourly(writer: &Writer, name: &str, missed: &str) -> String {
    let definition: Definition = serde_json::from_value(echo(name)).expect("a definition");
    let project_id = writer.service.defaults().project_id;
    let spec = DefinitionSpec { project_id, definition, hash: String::new() };
    let made = writer.execute(Command::Create(Box::new(Spec::WorkflowDefinition(spec)))).await;
    let definition_id = made.expect("published").id.parse().expect("an id");
    let triggers = json!({"tick": {"schedule": {"cron": "0 * * * *", "missed": missed}}});
    let spec = WorkflowSpec {
        project_id,
        name: name.parse().expect("a name"),
        description: None,
        definition_id,
        definition_version: None,
        paused: false,
        enabled: true,
        triggers: serde_json::from_value(triggers).expect("triggers"),
    };
    let made = writer.execute(Command::Create(Box::new(Spec::Workflow(spec)))).await;
    made.expect("made").id
}

async fn revise(writer: &Writer, id: &str, patch: Value) {
    let revise = Command::Revise { kind: Kind::Workflow, id: id.to_owned(), patch };
    writer.execute(revise).await.expect("revised");
}

/// The hours (since the clock's first) for which a workflow's runs have started, once the journal
/// shows that the last of them is done with.
async fn hours(writer: &Writer, id: &str, last: i64) -> Vec<i64> {
    let since_first = |at: DateTime<Utc>| (at.timestamp() - 1_800_000_000) / 3_600;
    wait_for(&format!("hour {last} to be done with"), || async {
        let records = writer.records().await;
        let mut done = Vec::new();
        for event in records.events.iter().filter(|event| &*event.aggregate_type == "trigger") {
            let event: trigger::Event = records.decode(event).expect("an event of a trigger");
            if event.trigger().workflow_id.to_string() == id {
                done.push(match event {
                    trigger::Event::TriggerFired { at, .. } => since_first(at),
                    trigger::Event::TriggerMissed { last, .. } => since_first(last),
                    other => panic!("{other:?}"),
                });
            }
        }
        done.contains(&last).then_some(())
    })
    .await;
    let records = writer.records().await;
    let mut hours: Vec<i64> = check(&records)
        .values()
        .filter(|by| by.workflow_id.to_string() == id)
        .map(|by| since_first(by.at))
        .collect();
    hours.sort_unstable();
    hours
}

#[tokio::test(flavor = "multi_thread")]
async fn times_that_came_while_all_was_down_are_skipped_or_made_up_for() {
    let world = World::default();
    let writer = world.start().await;
    let skip = hourly(&writer, "skip", "skip").await;
    let one = hourly(&writer, "one", "one").await;
    let all = hourly(&writer, "all", "all").await;
    hours_on(&world, 1);
    for id in [&skip, &one, &all] {
        // Not the hour in which it was made.
        assert_eq!(hours(&writer, id, 1).await, [1]);
    }
    writer.stop().await;
    // Down from the second hour to after the fifth.
    hours_on(&world, 4);
    world.clock.advance(TimeDelta::minutes(30));
    let writer = world.start().await;
    assert_eq!(hours(&writer, &skip, 5).await, [1]);
    assert_eq!(hours(&writer, &one, 5).await, [1, 5]);
    assert_eq!(hours(&writer, &all, 5).await, [1, 2, 3, 4, 5]);
    // And all go on, also after a restart at once.
    writer.stop().await;
    let writer = world.start().await;
    world.clock.advance(TimeDelta::minutes(30));
    assert_eq!(hours(&writer, &skip, 6).await, [1, 6]);
    assert_eq!(hours(&writer, &one, 6).await, [1, 5, 6]);
    assert_eq!(hours(&writer, &all, 6).await, [1, 2, 3, 4, 5, 6]);
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_makes_up_for_nothing_that_was_before_it_was_changed_or_enabled() {
    let world = World::default();
    let writer = world.start().await;
    let id = hourly(&writer, "off", "all").await;
    hours_on(&world, 1);
    assert_eq!(hours(&writer, &id, 1).await, [1]);
    // Disabled for two hours, the trigger first and then the workflow.
    revise(&writer, &id, json!({"triggers": {"tick": {"enabled": false}}})).await;
    hours_on(&world, 1);
    let patch = json!({"enabled": false, "triggers": {"tick": {"enabled": true}}});
    revise(&writer, &id, patch).await;
    hours_on(&world, 1);
    world.clock.advance(TimeDelta::minutes(10));
    revise(&writer, &id, json!({"enabled": true})).await;
    hours_on(&world, 1);
    assert_eq!(hours(&writer, &id, 4).await, [1, 4]);
    // Other times from here on; what isn't about times takes nothing away.
    writer.stop().await;
    hours_on(&world, 1);
    let writer = world.start().await;
    assert_eq!(hours(&writer, &id, 5).await, [1, 4, 5]);
    let every = json!({"cron": null, "every": "2h"});
    revise(&writer, &id, json!({"triggers": {"tick": {"schedule": every}}})).await;
    revise(&writer, &id, json!({"triggers": {"tick": {"labels": {"a": "b"}}}})).await;
    hours_on(&world, 3);
    let hours = hours(&writer, &id, 8).await;
    assert_eq!(hours, [1, 4, 5, 6, 8]);
    writer.stop().await;
}
