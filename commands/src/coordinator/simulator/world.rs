//! Two coordinators over one store, what befalls them, and the time that they live in.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chassis::clock::Clock;
use chassis::journal::Journal;
use chassis::shards::Owned;
use chrono::{DateTime, TimeDelta, Utc};
use protocol::SHARDS;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::broker::{Broker, View, relay};
use super::chance::{Chance, Troubles};
use super::client::Edge;
use super::journal::{Connection, Store};
use crate::coordinator::TaskQueue;
use crate::resources::Defaults;
use crate::{CommandService, CoordinatorConfig, Foundation, Writes};

/// Coordinators.
const SLOTS: usize = 2;

/// Simulated time, which all processes share; it may be put forward and back.
struct SimulatedClock {
    begun: Instant,
    skew_micros: AtomicI64,
    chance: Chance,
}

impl fmt::Debug for SimulatedClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatedClock").finish_non_exhaustive()
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> DateTime<Utc> {
        let skew = TimeDelta::microseconds(self.skew_micros.load(Ordering::Relaxed));
        let micros = i64::try_from(self.begun.elapsed().as_micros()).unwrap_or(i64::MAX);
        DateTime::from_timestamp_micros(1_800_000_000_000_000 + micros).unwrap_or_default() + skew
    }

    fn uuid_v7(&self) -> Uuid {
        self.chance.uuid()
    }
}

/// A process: a coordinator, and its way to the store.
struct Process {
    service: Arc<CommandService>,
    connection: Arc<Connection>,
    ownership: watch::Sender<Arc<Owned>>,
    shutdown: CancellationToken,
}

/// Everything there is.
pub(super) struct World {
    pub(super) seed: u64,
    pub(super) chance: Chance,
    pub(super) store: Arc<Store>,
    pub(super) broker: Broker,
    pub(super) troubles: Arc<Troubles>,
    clock: Arc<SimulatedClock>,
    is_rough: Arc<AtomicBool>,
    processes: Mutex<[Option<Process>; SLOTS]>,
    /// Which process owns a shard, under which epoch.
    owners: Mutex<BTreeMap<u16, (usize, u64)>>,
    tracker: TaskTracker,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    pub(super) fn new(seed: u64) -> Arc<Self> {
        let chance = Chance::new(seed);
        let skew_micros = AtomicI64::new(0);
        let clock = SimulatedClock { begun: Instant::now(), skew_micros, chance: chance.clone() };
        Arc::new(Self {
            seed,
            chance,
            store: Arc::default(),
            broker: Broker::default(),
            troubles: Arc::default(),
            clock: Arc::new(clock),
            is_rough: Arc::default(),
            processes: Mutex::default(),
            owners: Mutex::default(),
            tracker: TaskTracker::new(),
        })
    }

    pub(super) fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock) as _
    }

    pub(super) fn is_rough(&self) -> bool {
        self.is_rough.load(Ordering::Relaxed)
    }

    pub(super) fn set_rough(&self, is_rough: bool) {
        self.is_rough.store(is_rough, Ordering::Relaxed);
    }

    /// The coordinator that owns a shard, where one does.
    pub(super) fn owner_of(&self, shard: u16) -> Option<Arc<CommandService>> {
        let (slot, _) = *locked(&self.owners).get(&shard)?;
        locked(&self.processes)[slot].as_ref().map(|process| Arc::clone(&process.service))
    }

    /// Any coordinator that lives.
    pub(super) fn any(&self) -> Option<Arc<CommandService>> {
        let processes = locked(&self.processes);
        processes.iter().flatten().next().map(|process| Arc::clone(&process.service))
    }

    /// The workspace and the project that are always there.
    pub(super) fn defaults(&self) -> Defaults {
        self.any().expect("a coordinator lives").defaults()
    }

    /// Starts both coordinators, which share the shards.
    pub(super) async fn begin(self: &Arc<Self>) {
        for slot in 0..SLOTS {
            self.start(slot).await;
        }
        for shard in 0..SHARDS {
            self.give(shard, usize::from(shard) % SLOTS);
        }
        self.announce();
    }

    /// Starts a process that owns nothing yet; tries until the store lets it.
    async fn start(self: &Arc<Self>, slot: usize) {
        loop {
            let connection = Arc::new(Connection::new(
                Arc::clone(&self.store),
                self.chance.clone(),
                Arc::clone(&self.troubles),
                Arc::clone(&self.is_rough),
            ));
            let (ownership, owned) = watch::channel(Arc::default());
            let foundation = Foundation {
                journal: Arc::clone(&connection) as Arc<dyn Journal>,
                clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
                writes: Writes::Journal,
                ownership: owned,
                shards: None,
                queues: None,
                everywhere: Some(Arc::new(Edge(Arc::downgrade(self)))),
                archives: None,
            };
            // Small, so that caps are reached and runs leave memory and come back.
            let config = CoordinatorConfig {
                workers: 2,
                tasks_in_flight: 8,
                tasks_in_flight_per_run: 3,
                idle: Duration::from_secs(1),
            };
            let queue = Arc::new(View(Arc::clone(self))) as Arc<dyn TaskQueue>;
            let shutdown = CancellationToken::new();
            let started = CommandService::start_with(
                foundation,
                Some(queue),
                &config,
                shutdown.clone(),
                &self.tracker,
            );
            match started.await {
                Ok(service) => {
                    tokio::spawn(relay(Arc::clone(self), service.tasks()));
                    let process = Process { service, connection, ownership, shutdown };
                    locked(&self.processes)[slot] = Some(process);
                    return;
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(300)).await,
            }
        }
    }

    /// Gives a shard to a process; nobody is told yet.
    fn give(&self, shard: u16, slot: usize) {
        let epoch = self.store.next_epoch(shard);
        locked(&self.owners).insert(shard, (slot, epoch));
    }

    /// Tells all processes what they own.
    fn announce(&self) {
        for slot in 0..SLOTS {
            self.tell(slot);
        }
    }

    fn tell(&self, slot: usize) {
        let owners = locked(&self.owners);
        let own = owners.iter().filter(|(_, (owner, _))| *owner == slot);
        let epochs = own.map(|(shard, (_, epoch))| (*shard, *epoch)).collect();
        if let Some(process) = &locked(&self.processes)[slot] {
            process.ownership.send_replace(Arc::new(Owned { epochs }));
        }
    }

    /// One misfortune, and what is done about it.
    pub(super) async fn misfortune(self: &Arc<Self>) {
        match self.chance.below(10) {
            0..=4 => {
                self.troubles.note("shards moved");
                self.move_shards().await;
            }
            5..=7 => {
                self.troubles.note("a coordinator died");
                self.crash().await;
            }
            8 => {
                self.troubles.note("the queues were wiped");
                self.broker.wipe();
            }
            _ => {
                self.troubles.note("the clock jumped");
                self.jump();
            }
        }
    }

    /// Shards change hands, once with and once without a word to who had them.
    async fn move_shards(&self) {
        let is_told = self.chance.one_in(2);
        for shard in 0..SHARDS {
            if self.chance.one_in(3) {
                let to = usize::try_from(self.chance.below(SLOTS as u64)).unwrap_or(0);
                self.give(shard, to);
            }
        }
        let first = usize::try_from(self.chance.below(SLOTS as u64)).unwrap_or(0);
        self.tell(first);
        let longest = if is_told { Duration::ZERO } else { Duration::from_secs(6) };
        tokio::time::sleep(self.chance.up_to(longest)).await;
        self.announce();
    }

    /// A process dies with all that it has in memory; the other one takes over, and a new process
    /// gets half of it.
    async fn crash(self: &Arc<Self>) {
        let slot = usize::try_from(self.chance.below(SLOTS as u64)).unwrap_or(0);
        let Some(process) = locked(&self.processes)[slot].take() else { return };
        process.connection.cut();
        process.shutdown.cancel();
        drop(process);
        tokio::time::sleep(self.chance.up_to(Duration::from_secs(6))).await;
        for shard in 0..SHARDS {
            self.give(shard, 1 - slot);
        }
        self.announce();
        tokio::time::sleep(self.chance.up_to(Duration::from_secs(3))).await;
        self.start(slot).await;
        for shard in (0..SHARDS).filter(|shard| shard % 2 == 0) {
            self.give(shard, slot);
        }
        self.announce();
    }

    /// The clock jumps by up to ten minutes.
    fn jump(&self) {
        let micros = i64::try_from(self.chance.below(1_200_000_000)).unwrap_or(0) - 600_000_000;
        self.clock.skew_micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// Ends all processes.
    pub(super) async fn end(&self) {
        for process in locked(&self.processes).iter().flatten() {
            process.shutdown.cancel();
        }
        self.tracker.close();
        self.tracker.wait().await;
        *locked(&self.processes) = Default::default();
    }
}
