//! The sweep: archives runs as their projects want it, one after the other.
//!
//! It goes along the journal by the ends of runs, with a place for each age that a project gives:
//! all runs that ended before it have been looked at. Where it is isn't stored: a process that
//! starts, or gets a shard, begins at the first event, and passes over what is archived. Each
//! process looks after the runs of its own shards; should two take the same run, one append is
//! refused.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use chassis::journal::{Sought, Written, all_ids, open_ids};
use chassis::shards::Owned;
use chrono::{DateTime, TimeDelta, Utc};
use domain::ids::{CommandId, ProjectId, RunId};
use domain::resource::Kind;
use domain::retention::{AGGREGATE, Archive, Keep, Policy};
use domain::span::Span;
use futures::TryStreamExt;
use protocol::{Rejection, RejectionKind, shard_of};
use tokio::time::Instant;

use super::{ACTOR, Archivist, Asked, Ended, RUN, UNREADABLE, away};
use crate::coordinator::{Folded, fold};
use crate::resolve::Resolver;
use crate::store::metadata::{self, Along};

/// How often it is looked for runs whose time has come, and for other policies or shards.
const EVERY: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_secs(1);
/// How often the whole journal is looked through for values that nothing refers to, and how long
/// ago they were let go at least: who has read an event then has read its values by now.
const VALUES_EVERY: Duration = Duration::from_secs(24 * 60 * 60);
/// The same for the first time, since a process may not live as long.
const VALUES_FIRST: Duration = Duration::from_secs(15 * 60);
const RELEASED_FOR: TimeDelta = TimeDelta::minutes(10);
/// The process that owns this shard does that.
const VALUES_SHARD: u16 = 0;
/// Positions that are looked through at once.
const WINDOW: u64 = 10_000;
/// Runs that are tried again, since something that goes on needs them.
const PUT_OFF: usize = 10_000;
/// Code of why a run is left whose project wants all of it to be written elsewhere first.
const NOT_WRITTEN: &str = "run_not_archived";
/// The events that end runs.
const ENDS: [&str; 4] = ["run_completed", "run_failed", "run_cancelled", "run_timed_out"];

/// What the sweep knows.
#[derive(Default)]
pub(super) struct Sweep {
    policies: BTreeMap<ProjectId, Policy>,
    owned: Arc<Owned>,
    /// By age, the position up to which all ends of runs have been looked at.
    places: HashMap<Span, u64>,
    put_off: BTreeSet<RunId>,
}

impl Archivist {
    /// Sweeps for ever.
    pub(crate) async fn sweep(self: Arc<Self>, resolver: Arc<Resolver>) {
        let (mut sweep, mut known, mut due) = (Sweep::default(), None, Instant::now());
        let mut values_due = Instant::now() + VALUES_FIRST;
        loop {
            let owned = Arc::clone(&self.ownership.borrow());
            let releases = self.releases.load(Ordering::Relaxed);
            let found = (resolver.writes(), releases, Arc::clone(&owned));
            if known.as_ref() != Some(&found) || due <= Instant::now() {
                // What can't be done now is done the next time.
                match self.pass(&mut sweep, &resolver, &owned).await {
                    Ok(()) => known = Some(found),
                    Err(error) => tracing::warn!(%error, "archiving runs waits, and tries again"),
                }
                due = Instant::now() + EVERY;
            }
            if values_due <= Instant::now() && owned.epochs.contains_key(&VALUES_SHARD) {
                match self.drop_values(self.clock.now() - RELEASED_FOR).await {
                    Ok(0) => {}
                    Ok(values) => tracing::info!(values, "dropped what nothing refers to"),
                    Err(error) => tracing::warn!(%error, "dropping values waits for the next time"),
                }
                values_due = Instant::now() + VALUES_EVERY;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Archives all runs whose time has come.
    async fn pass(
        &self,
        sweep: &mut Sweep,
        resolver: &Resolver,
        owned: &Arc<Owned>,
    ) -> Result<(), Rejection> {
        let policies = self.policies(resolver).await?;
        if policies != sweep.policies || *owned != sweep.owned {
            self.finish(owned).await?;
            let (places, put_off) = (HashMap::new(), BTreeSet::new());
            *sweep = Sweep { policies, owned: Arc::clone(owned), places, put_off };
        }
        for run_id in sweep.put_off.clone() {
            self.consider(sweep, run_id, None).await?;
        }
        let ages: BTreeSet<Span> = sweep.policies.values().map(|policy| policy.after).collect();
        for age in ages {
            let until =
                Policy { keep: Keep::Header, after: age, archive: false }.until(self.clock.now());
            let through = self.last_before(until).await?;
            let mut place = sweep.places.get(&age).copied().unwrap_or(0);
            while place < through {
                let upto = through.min(place + WINDOW);
                for ended in self.ended(place, upto).await? {
                    if let Ok(run_id) = ended.aggregate_id.parse::<RunId>()
                        && owned.epochs.contains_key(&shard_of(run_id))
                    {
                        self.consider(sweep, run_id, Some(age)).await?;
                    }
                }
                place = upto;
                sweep.places.insert(age, place);
            }
        }
        Ok(())
    }

    async fn policies(
        &self,
        resolver: &Resolver,
    ) -> Result<BTreeMap<ProjectId, Policy>, Rejection> {
        let mut policies = BTreeMap::new();
        let mut projects = all_ids(&*self.journal, Kind::Project.as_str());
        while let Some(id) = projects.try_next().await.map_err(away)? {
            let Ok(id) = id.parse::<ProjectId>() else { continue };
            let policy = resolver.project(id).await?.and_then(|project| project.retention);
            policies.extend(policy.filter(|one| one.keep < Keep::Full).map(|one| (id, one)));
        }
        Ok(policies)
    }

    /// Goes on with runs that a process has left half done.
    pub(super) async fn finish(&self, owned: &Owned) -> Result<(), Rejection> {
        for shard in owned.epochs.keys() {
            let mut begun = open_ids(&*self.journal, AGGREGATE, *shard);
            while let Some(id) = begun.try_next().await.map_err(away)? {
                let Ok(run_id) = id.parse::<RunId>() else { continue };
                // As it was begun, and no further.
                match self.archive_by(run_id, Keep::Full, false).await {
                    Err(refused) if refused.kind == RejectionKind::Unavailable => {
                        return Err(refused);
                    }
                    Err(refused) => {
                        tracing::warn!(%run_id, %refused, "a run stays half archived");
                    }
                    Ok(()) => {}
                }
            }
        }
        Ok(())
    }

    async fn ended(&self, after: u64, through: u64) -> Result<Vec<Written>, Rejection> {
        let (aggregate_type, without) = (RUN, AGGREGATE);
        let sought = Sought { aggregate_type, event_types: &ENDS, without, after, through };
        self.journal.seek(sought).await.map_err(away)
    }

    /// The last position up to which events were recorded by then; those of forks, which tell of
    /// earlier times, may make it a little less.
    async fn last_before(&self, until: DateTime<Utc>) -> Result<u64, Rejection> {
        let (mut known, mut beyond) = (0, self.journal.head().await.map_err(away)? + 1);
        while known + 1 < beyond {
            let probe = known + (beyond - known) / 2;
            let event = self.journal.read(probe - 1, 1).await.map_err(away)?.pop();
            match event {
                Some(event) if event.recorded_at <= until => known = probe,
                _ => beyond = probe,
            }
        }
        Ok(known)
    }

    /// Archives a run where its project's policy, if it has this age, wants it. One that can't be
    /// archived now is tried again, and one that can't be read is left alone: the log says which.
    async fn consider(
        &self,
        sweep: &mut Sweep,
        run_id: RunId,
        age: Option<Span>,
    ) -> Result<(), Rejection> {
        match self.by_policy(sweep, run_id, age).await {
            Err(refused) if refused.kind == RejectionKind::Unavailable => return Err(refused),
            Err(refused) if refused.code != UNREADABLE && sweep.put_off.len() < PUT_OFF => {
                let is_new = sweep.put_off.insert(run_id);
                if is_new && refused.code == NOT_WRITTEN {
                    metrics::counter!("wonder_runs_not_archived_total").increment(1);
                    tracing::warn!(%run_id, %refused, "a run is kept: it isn't written elsewhere");
                } else {
                    tracing::debug!(%run_id, %refused, "a run is archived later");
                }
            }
            Err(refused) => {
                tracing::warn!(%run_id, %refused, "a run isn't archived until the next start");
                sweep.put_off.remove(&run_id);
            }
            Ok(()) => {
                sweep.put_off.remove(&run_id);
            }
        }
        Ok(())
    }

    /// Writes all of a run elsewhere, if anything is to be dropped and all of it is there.
    async fn archived_first(
        &self,
        ended: &Ended,
        keep: Keep,
    ) -> Result<Option<Archive>, Rejection> {
        let run_id = ended.run_id;
        let (retained, _) = self.retained(&run_id.to_string()).await?;
        if retained.next(keep).is_none() || retained.archive.is_some() {
            return Ok(None);
        }
        let failed = |reason: String| Rejection::new(RejectionKind::Conflict, NOT_WRITTEN, reason);
        if retained.keep.is_some() {
            let text = "content was dropped before, and all of it was written nowhere".to_owned();
            return Err(failed(text));
        }
        // What is refused anyway isn't worth a file.
        let kin = self.kin(run_id).await?;
        self.free(&kin).await?;
        self.unneeded(&kin).await?;
        let Some(archives) = &self.archives else {
            let text = "its project wants it to be archived, and there is no --archive-dir";
            return Err(failed(text.to_owned()));
        };
        archives.write(run_id, ended.sequence).await.map(Some).map_err(failed)
    }

    async fn by_policy(
        &self,
        sweep: &Sweep,
        run_id: RunId,
        age: Option<Span>,
    ) -> Result<(), Rejection> {
        let beginning = self.beginning(run_id).await?;
        match sweep.policies.get(&beginning.project_id) {
            Some(policy) if age.is_none_or(|age| age == policy.after) => {
                self.archive_by(run_id, policy.keep, policy.archive).await
            }
            Some(_) | None => Ok(()),
        }
    }

    pub(super) async fn archive_by(
        &self,
        run_id: RunId,
        keep: Keep,
        first: bool,
    ) -> Result<(), Rejection> {
        let folded = fold(&*self.journal, run_id).await.map_err(|error| error.refusal())?;
        let Some(Folded { workspace_id, run, sequence, .. }) = folded else { return Ok(()) };
        if run.closed().is_none() {
            return Ok(());
        }
        let ended = Ended { run_id, workspace_id, sequence };
        let archive = match first {
            true => self.archived_first(&ended, keep).await?,
            false => None,
        };
        let command_id = CommandId::new(self.clock.uuid_v7());
        let asked = Asked {
            keep,
            archive,
            dry_run: false,
            metadata: metadata::by(ACTOR, command_id, Along::default()),
            remembered: None,
        };
        let receipt = self.archive(&ended, asked).await?;
        if let Some(dropped) = receipt.dropped.filter(|dropped| dropped.dropped > 0) {
            let (events, bytes) = (dropped.dropped, dropped.bytes);
            tracing::debug!(%run_id, keep = %dropped.keep, events, bytes, "a run is archived");
            metrics::counter!("wonder_runs_archived_total").increment(1);
            metrics::counter!("wonder_archived_bytes_total").increment(bytes);
        }
        Ok(())
    }
}
