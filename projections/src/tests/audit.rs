//! The audit chain: sealed whatever comes in between, and signed.

use domain::audit::{AuditKey, AuditPublicKey, Chain};
use protocol::AuditQueries;

use super::*;
use crate::{AuditTrail, recorded};

fn with_key() -> Config {
    Config { audit_key: Some(AuditKey::from_seed(&[1; 32])), ..config() }
}

async fn trail(world: &World) -> AuditTrail {
    let views = world.other_views().await;
    AuditTrail::open(views, world.journal.epoch()).await.expect("it opens").expect("tables")
}

/// The chain up to a position, by the journal alone.
async fn chain(world: &World, position: u64) -> Chain {
    let mut chain = Chain::start(world.journal.epoch());
    let limit = usize::try_from(position).expect("small");
    for event in world.journal.read(0, limit).await.expect("events") {
        chain.follow(&recorded(&event).leaf());
    }
    chain
}

/// Runs of three steps.
async fn many(world: &World, numbers: std::ops::Range<u128>) {
    for number in numbers {
        world.whole_run(number, 3, true).await;
    }
}

async fn every_event_is_sealed_in_its_place(storage: Storage) {
    let mut world = World::idle(storage, with_key()).await;
    // Blocks of 256 positions are filled by batches of any size, through a restart.
    many(&world, 0..40).await;
    world.start();
    world.caught_up().await;
    many(&world, 40..160).await;
    world.caught_up().await;
    let tasks = std::mem::take(&mut world.tasks);
    world.end(tasks).await;
    let head = world.journal.head().await.expect("a head");
    let seals = trail(&world).await.seals(0, 100).await.expect("seals");
    assert!(head > 512, "{head} events");
    let ends: Vec<_> = seals.iter().map(|seal| (seal.first, seal.last())).collect();
    let blocks = (0..=(head - 1) / 256).map(|block| (block * 256 + 1, head.min((block + 1) * 256)));
    assert_eq!(ends, blocks.collect::<Vec<_>>());
    for seal in &seals {
        assert_eq!(seal.hash, chain(&world, seal.last()).await.hash.to_string());
    }
    let later = trail(&world).await.seals(256, 100).await.expect("seals");
    assert_eq!(later, seals[1..]);
    let events = world.journal.read(256, 1).await.expect("events");
    assert_eq!(seals[1].marks[0], recorded(&events[0]).leaf().mark());
}

async fn the_end_is_signed(storage: Storage) {
    let mut world = World::idle(storage, with_key()).await;
    many(&world, 0..3).await;
    world.start();
    world.caught_up().await;
    let tasks = std::mem::take(&mut world.tasks);
    world.end(tasks).await;
    let heads = world.views.heads(0, 10).await.expect("heads");
    assert_eq!((heads.items.len(), heads.next_after), (1, None));
    let key = AuditPublicKey::from_pem(heads.public_key.as_deref().expect("a key"));
    let key = key.expect("it can be read");
    let head = trail(&world).await.heads(0, 10).await.expect("heads").pop().expect("one");
    assert!(key.has_signed(&head));
    let end = world.journal.head().await.expect("a head");
    assert_eq!(head.chain(), Ok(chain(&world, end).await));
    assert_eq!(heads.items[0].signature, head.signature);
    assert_eq!(world.views.heads(end, 10).await.expect("heads").items, []);
}

async fn an_altered_event_is_not_sealed_again(storage: Storage) {
    let world = World::new(storage).await;
    many(&world, 0..3).await;
    world.caught_up().await;
    let same = world.views.compare("audit", |_| {}).await.expect("it compares");
    assert_eq!(same.difference, None);
    world.sql_on_journal("update events set workspace_id = 'ws' where position = 4").await;
    let other = world.views.compare("audit", |_| {}).await.expect("it compares");
    assert_eq!(other.difference.expect("it differs").table, "seals");
}

on_both_storages!(
    every_event_is_sealed_in_its_place,
    the_end_is_signed,
    an_altered_event_is_not_sealed_again,
);
