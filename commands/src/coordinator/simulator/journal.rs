//! A journal in memory, and the ways that coordinators have to it, which fail.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use chassis::journal::feed::{Feed, FeedLimits};
use chassis::journal::tail::Pages;
use chassis::journal::{
    Append, AppendError, Appended, Journal, Mark, Payload, ReadError, Recalled, RecordedEvent,
    Snapshot, Sought, Tail, Until, Written,
};
use chrono::{DateTime, Utc};
use tokio::time::Instant;

use super::chance::{Chance, Troubles};

/// What is durable. It never fails, and never forgets.
#[derive(Debug, Default)]
pub(super) struct Store {
    kept: Mutex<Kept>,
    /// What processes hear of it, one for each tail: who waits for the same one would be woken in
    /// any order.
    feeds: Mutex<Vec<Weak<Feed>>>,
}

type Name = (Arc<str>, Arc<str>);

#[derive(Debug, Default)]
struct Kept {
    /// The event of position `n` is at `n - 1`.
    events: Vec<RecordedEvent>,
    /// When each of them became durable.
    times: Vec<Instant>,
    streams: BTreeMap<Name, Vec<usize>>,
    inbox: HashMap<String, Recalled>,
    payloads: HashMap<Arc<str>, Payload>,
    snapshots: HashMap<Name, Snapshot>,
    open: BTreeSet<(Arc<str>, u16, Arc<str>)>,
    /// By what they lean on, open ones and others.
    leaning: BTreeSet<(Arc<str>, Name)>,
    epochs: BTreeMap<u16, u64>,
    marks: BTreeMap<(u16, Arc<str>), DateTime<Utc>>,
}

impl Store {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn feeds(&self) -> MutexGuard<'_, Vec<Weak<Feed>>> {
        self.feeds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a shard to its next owner: under the epoch that is returned, and no other from now on.
    pub(super) fn next_epoch(&self, shard: u16) -> u64 {
        let mut kept = self.kept();
        let epoch = kept.epochs.entry(shard).or_default();
        *epoch += 1;
        *epoch
    }

    /// All events after a position, and when they became durable.
    pub(super) fn events_after(&self, position: u64) -> Vec<(RecordedEvent, Instant)> {
        let (kept, from) = (self.kept(), usize::try_from(position).unwrap_or(usize::MAX));
        let times = kept.times.iter().skip(from).copied();
        kept.events.iter().skip(from).cloned().zip(times).collect()
    }

    pub(super) fn payload(&self, hash: &str) -> Option<Vec<u8>> {
        self.kept().payloads.get(hash).map(|payload| payload.bytes.to_vec())
    }

    /// Aggregates that still owe work.
    pub(super) fn open(&self) -> Vec<Arc<str>> {
        self.kept().open.iter().map(|(_, _, id)| Arc::clone(id)).collect()
    }

    fn append(&self, append: Append) -> Result<Appended, AppendError> {
        append.check_limits()?;
        let mut kept = self.kept();
        if append.epoch.is_some_and(|epoch| kept.epochs.get(&append.shard) != Some(&epoch)) {
            return Err(AppendError::Fenced { shard: append.shard });
        }
        if let Some(known) = append.inbox.iter().find_map(|entry| kept.inbox.get(&entry.key)) {
            return Err(AppendError::Duplicate(known.clone()));
        }
        let name = (Arc::clone(&append.aggregate_type), Arc::clone(&append.aggregate_id));
        let mut sequence = kept.streams.get(&name).map_or(0, Vec::len) as u64;
        if sequence != append.expected_sequence {
            let (aggregate_id, expected) = (append.aggregate_id, append.expected_sequence);
            return Err(AppendError::Conflict { aggregate_id, expected });
        }
        let (first, now) = (kept.events.len(), Instant::now());
        for event in append.events {
            sequence += 1;
            let at = kept.events.len();
            kept.streams.entry(name.clone()).or_default().push(at);
            kept.times.push(now);
            kept.events.push(RecordedEvent {
                position: at as u64 + 1,
                id: event.id,
                aggregate_type: Arc::clone(&name.0),
                aggregate_id: Arc::clone(&name.1),
                sequence,
                event_type: event.event_type,
                event_version: event.event_version,
                workspace_id: Arc::clone(&append.workspace_id),
                payload: event.payload,
                metadata: append.metadata.clone(),
                recorded_at: append.recorded_at,
                redacted: None,
            });
        }
        let last_position = kept.events.len() as u64;
        for entry in append.inbox {
            let (fingerprint, answer) = (entry.fingerprint, entry.answer);
            let recalled = Recalled { fingerprint, answer, position: last_position };
            kept.inbox.insert(entry.key, recalled);
        }
        for payload in append.payloads {
            kept.payloads.insert(Arc::clone(&payload.hash), payload);
        }
        let entry = (Arc::clone(&name.0), append.shard, Arc::clone(&name.1));
        kept.leaning.extend(append.leans_on.map(|on| (on, name.clone())));
        match append.open {
            Some(true) => drop(kept.open.insert(entry)),
            Some(false) => drop(kept.open.remove(&entry)),
            None => {}
        }
        if let Some(Mark { name, until }) = append.mark {
            let kept = kept.marks.entry((append.shard, name)).or_insert(until);
            *kept = until.max(*kept);
        }
        if let Some(snapshot) = append.snapshot {
            kept.snapshots.insert(name, snapshot);
        }
        let new: Vec<_> = kept.events[first..].iter().cloned().map(Arc::new).collect();
        self.feeds().retain(|feed| match feed.upgrade() {
            Some(feed) => {
                feed.publish(new.clone());
                true
            }
            None => false,
        });
        Ok(Appended { first_position: first as u64 + 1, last_position, last_sequence: sequence })
    }
}

/// One process's way to the store: slow, and at times broken.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) store: Arc<Store>,
    chance: Chance,
    troubles: Arc<Troubles>,
    /// Whether anything fails at the moment.
    is_rough: Arc<AtomicBool>,
    /// The process is dead, as far as the store is concerned.
    is_cut: AtomicBool,
}

impl Connection {
    pub(super) fn new(
        store: Arc<Store>,
        chance: Chance,
        troubles: Arc<Troubles>,
        is_rough: Arc<AtomicBool>,
    ) -> Self {
        Self { store, chance, troubles, is_rough, is_cut: AtomicBool::new(false) }
    }

    pub(super) fn cut(&self) {
        self.is_cut.store(true, Ordering::Relaxed);
    }

    fn is_rough(&self) -> bool {
        self.is_rough.load(Ordering::Relaxed)
    }

    /// Takes its time, and fails once in so many times.
    async fn way(&self, longest: Duration, failing: u64) -> Result<(), Arc<str>> {
        let rough = self.is_rough();
        let slow = rough && self.chance.one_in(50);
        tokio::time::sleep(self.chance.up_to(if slow { 50 * longest } else { longest })).await;
        if self.is_cut.load(Ordering::Relaxed) || (rough && self.chance.one_in(failing)) {
            return Err("the simulator says so".into());
        }
        Ok(())
    }

    async fn reading(&self) -> Result<MutexGuard<'_, Kept>, ReadError> {
        let there = self.way(Duration::from_millis(5), 60).await;
        there
            .inspect_err(|_| self.troubles.note("a read failed"))
            .map_err(ReadError::Unavailable)?;
        Ok(self.store.kept())
    }
}

#[async_trait]
impl Journal for Connection {
    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        let way = || async {
            let there = self.way(Duration::from_millis(20), 80).await;
            there.map_err(AppendError::Unavailable)
        };
        way().await.inspect_err(|_| self.troubles.note("an append failed"))?;
        let appended = self.store.append(append);
        if matches!(appended, Err(AppendError::Fenced { .. })) {
            self.troubles.note("an append was fenced");
        }
        way().await.inspect_err(|_| self.troubles.note("an append's answer was lost"))?;
        appended
    }

    async fn load(
        &self,
        aggregate_type: &str,
        aggregate_id: &str,
        after: u64,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        let kept = self.reading().await?;
        let Some(stream) = kept.streams.get(&(aggregate_type.into(), aggregate_id.into())) else {
            return Ok(Vec::new());
        };
        let after = usize::try_from(after).unwrap_or(usize::MAX);
        let events = stream.iter().skip(after).take(limit);
        Ok(events.map(|at| kept.events[*at].clone()).collect())
    }

    async fn read(&self, after: u64, limit: usize) -> Result<Vec<RecordedEvent>, ReadError> {
        let kept = self.reading().await?;
        let after = usize::try_from(after).unwrap_or(usize::MAX);
        Ok(kept.events.iter().skip(after).take(limit).cloned().collect())
    }

    async fn snapshot(
        &self,
        aggregate_type: &str,
        aggregate_id: &str,
        version: u32,
    ) -> Result<Option<Snapshot>, ReadError> {
        let kept = self.reading().await?;
        let snapshot = kept.snapshots.get(&(aggregate_type.into(), aggregate_id.into()));
        Ok(snapshot.filter(|snapshot| snapshot.version == version).cloned())
    }

    async fn snapshot_until(
        &self,
        aggregate_type: &str,
        aggregate_id: &str,
        version: u32,
        until: Until,
    ) -> Result<Option<Snapshot>, ReadError> {
        let newest = self.snapshot(aggregate_type, aggregate_id, version).await?;
        let kept = self.reading().await?;
        Ok(newest.filter(|snapshot| match until {
            Until::Sequence(sequence) => snapshot.sequence <= sequence,
            Until::Time(time) => {
                let stream = kept.streams.get(&(aggregate_type.into(), aggregate_id.into()));
                let place = usize::try_from(snapshot.sequence).ok().and_then(|n| n.checked_sub(1));
                let at = stream.zip(place).and_then(|(stream, place)| stream.get(place));
                at.is_some_and(|at| kept.events[*at].recorded_at <= time)
            }
        }))
    }

    async fn recall(&self, key: &str) -> Result<Option<Recalled>, ReadError> {
        let recalled = self.reading().await?.inbox.get(key).cloned();
        if recalled.is_some() {
            self.troubles.note("a command came twice");
        }
        Ok(recalled)
    }

    async fn payloads(&self, hashes: &[Arc<str>]) -> Result<Vec<Payload>, ReadError> {
        let kept = self.reading().await?;
        let missing = || ReadError::Damaged("a payload is missing".into());
        hashes.iter().map(|hash| kept.payloads.get(hash).cloned().ok_or_else(missing)).collect()
    }

    async fn open_aggregates(
        &self,
        aggregate_type: &str,
        shard: u16,
        after_id: &str,
        limit: usize,
    ) -> Result<Vec<Arc<str>>, ReadError> {
        let kept = self.reading().await?;
        let of_shard = |one: &&(Arc<str>, u16, Arc<str>)| {
            &*one.0 == aggregate_type && one.1 == shard && &*one.2 > after_id
        };
        Ok(kept.open.iter().filter(of_shard).take(limit).map(|one| Arc::clone(&one.2)).collect())
    }

    async fn leaning(
        &self,
        aggregate_type: &str,
        on: &str,
        after_id: &str,
        limit: usize,
    ) -> Result<Vec<Arc<str>>, ReadError> {
        let kept = self.reading().await?;
        let is_open = |name: &Name| kept.open.iter().any(|one| one.0 == name.0 && one.2 == name.1);
        let found = kept.leaning.iter().filter(|(leans_on, name)| {
            &**leans_on == on && &*name.0 == aggregate_type && &*name.1 > after_id && is_open(name)
        });
        Ok(found.take(limit).map(|(_, (_, id))| Arc::clone(id)).collect())
    }

    async fn marks(
        &self,
        shard: u16,
        after_name: &str,
        limit: usize,
    ) -> Result<Vec<Mark>, ReadError> {
        let kept = self.reading().await?;
        let of_shard = kept.marks.range((shard, Arc::from(after_name))..);
        let of_shard = of_shard.filter(|((at, name), _)| *at == shard && &**name > after_name);
        let mark = |((_, name), until): (&(u16, Arc<str>), &DateTime<Utc>)| Mark {
            name: Arc::clone(name),
            until: *until,
        };
        Ok(of_shard.take(limit).map(mark).collect())
    }

    async fn aggregates(
        &self,
        aggregate_type: &str,
        after_id: &str,
        limit: usize,
    ) -> Result<Vec<Arc<str>>, ReadError> {
        let kept = self.reading().await?;
        let names = kept.streams.keys();
        let wanted = names.filter(|name| &*name.0 == aggregate_type && &*name.1 > after_id);
        Ok(wanted.take(limit).map(|name| Arc::clone(&name.1)).collect())
    }

    async fn released(&self, _: DateTime<Utc>, _: usize) -> Result<Vec<Arc<str>>, ReadError> {
        // No run is archived here.
        Ok(Vec::new())
    }

    async fn seek(&self, sought: Sought<'_>) -> Result<Vec<Written>, ReadError> {
        let kept = self.reading().await?;
        let [after, through] =
            [sought.after, sought.through].map(|at| usize::try_from(at).unwrap_or(usize::MAX));
        let within = kept.events.iter().take(through).skip(after);
        let found = within.filter(|event| {
            let namesake = (Arc::from(sought.without), Arc::clone(&event.aggregate_id));
            &*event.aggregate_type == sought.aggregate_type
                && sought.event_types.contains(&&*event.event_type)
                && !kept.streams.contains_key(&namesake)
        });
        Ok(found.map(written).collect())
    }

    async fn head(&self) -> Result<u64, ReadError> {
        Ok(self.reading().await?.events.len() as u64)
    }

    fn epoch(&self) -> u32 {
        1
    }

    async fn written_elsewhere(
        &self,
        after: u64,
        without_type: &str,
    ) -> Result<Vec<Written>, ReadError> {
        let kept = self.reading().await?;
        let after = usize::try_from(after).unwrap_or(usize::MAX);
        let others = kept.events.iter().skip(after);
        let others = others.filter(|event| &*event.aggregate_type != without_type).take(1_000);
        Ok(others.map(written).collect())
    }

    fn tail(&self, after: u64) -> Tail {
        let head = self.store.kept().events.len() as u64;
        let feed = Arc::new(Feed::new(head, FeedLimits::default()));
        self.store.feeds().push(Arc::downgrade(&feed));
        Tail::new(feed, Arc::clone(&self.store) as Arc<dyn Pages>, after)
    }
}

fn written(event: &RecordedEvent) -> Written {
    Written {
        position: event.position,
        aggregate_type: Arc::clone(&event.aggregate_type),
        aggregate_id: Arc::clone(&event.aggregate_id),
    }
}

#[async_trait]
impl Pages for Store {
    async fn page(&self, after: u64, limit: usize) -> Result<Vec<RecordedEvent>, ReadError> {
        let after = usize::try_from(after).unwrap_or(usize::MAX);
        Ok(self.kept().events.iter().skip(after).take(limit).cloned().collect())
    }
}
