//! Leases of shards, on a real database: who owns what, and when.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chassis::database::{Database, DatabaseOptions};
use chassis::journal::{Append, AppendError, Journal, NewEvent, PostgresJournal, PostgresOptions};
use chassis::scratch::ScratchDatabase;
use chassis::shards::{Owned, Ownership, Shards, ShardsOptions};
use chrono::Utc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use uuid::Uuid;

const COUNT: u16 = 64;
/// Nothing waits longer than this.
const BOUND: Duration = Duration::from_secs(30);

fn options(name: &str, ttl: Duration) -> ShardsOptions {
    ShardsOptions { ttl, renew: Duration::from_millis(50), ..ShardsOptions::new(COUNT, name) }
}

/// Leases that don't run out during a test.
fn long(name: &str) -> ShardsOptions {
    options(name, Duration::from_secs(600))
}

async fn join(database: &Database, options: ShardsOptions) -> Shards {
    Shards::join(database, options).await.expect("the database can be reached")
}

/// Who owns all, and who owns nothing and won't look for a long time.
async fn owner_and_waiting(database: &Database) -> (Shards, Shards) {
    let first = join(database, long("first")).await;
    let slow = ShardsOptions { renew: Duration::from_secs(200), ..long("second") };
    let second = join(database, slow).await;
    assert_eq!(count(&second.owned()), 0, "it has taken what isn't free");
    (first, second)
}

fn count(owned: &Ownership) -> usize {
    owned.borrow().epochs.len()
}

async fn until_owns(owned: &mut Ownership, wanted: usize) {
    let owns = owned.wait_for(|owned| owned.epochs.len() == wanted);
    let waited = tokio::time::timeout(BOUND, owns).await;
    assert!(waited.is_ok_and(|owned| owned.is_ok()), "never owned {wanted}");
}

fn shards(owned: &Owned) -> HashSet<u16> {
    owned.epochs.keys().copied().collect()
}

#[tokio::test]
async fn members_share_evenly_and_hand_over_before_others_take() {
    let scratch = ScratchDatabase::create().await;
    let database = scratch.connect().await;
    let first = join(&database, long("first")).await;
    let mut one = first.owned();
    until_owns(&mut one, 64).await;
    let before = one.borrow().epochs.clone();

    let second = join(&database, long("second")).await;
    let mut two = second.owned();
    while count(&two) < 32 {
        tokio::time::timeout(BOUND, two.changed()).await.expect("it gets more").expect("it lives");
        let both = shards(&one.borrow()).intersection(&shards(&two.borrow())).count();
        assert_eq!(both, 0, "a shard was taken before it was given up");
    }
    until_owns(&mut one, 32).await;
    let (kept, taken) = (one.borrow().epochs.clone(), two.borrow().epochs.clone());
    assert!(kept.iter().all(|(shard, epoch)| before.get(shard) == Some(epoch)));
    assert!(taken.iter().all(|(shard, epoch)| before.get(shard) < Some(epoch)));

    let third = join(&database, long("third")).await;
    until_owns(&mut third.owned(), 20).await;
    let total = count(&one) + count(&two) + count(&third.owned());
    assert_eq!((count(&one), count(&two), total), (22, 22, 64));
    for member in [first, second, third] {
        member.leave().await;
        assert_eq!(*member.owned().borrow(), Arc::default());
    }
    let owners: i64 = sqlx::query_scalar("select count(*) from owners")
        .fetch_one(database.pool())
        .await
        .expect("owners can be counted");
    assert_eq!(owners, 0);
}

#[tokio::test]
async fn who_leaves_hands_over_at_once() {
    let scratch = ScratchDatabase::create().await;
    let database = scratch.connect().await;
    let (first, second) = owner_and_waiting(&database).await;
    let mut two = second.owned();
    first.leave().await;
    assert_eq!(count(&first.owned()), 0);
    // Neither the lease's end nor the next round would come in time.
    second.look();
    until_owns(&mut two, 64).await;
}

#[tokio::test]
async fn who_hands_over_to_a_newcomer_says_so() {
    let scratch = ScratchDatabase::create().await;
    let database = scratch.connect().await;
    let (first, second) = owner_and_waiting(&database).await;
    let mut two = second.owned();
    tokio::time::timeout(BOUND, first.released()).await.expect("it hands over");
    assert_eq!(count(&first.owned()), 32);
    second.look();
    until_owns(&mut two, 32).await;
}

/// The database's own word for it, by its own clock.
#[tokio::test]
async fn a_silent_member_gives_up_by_itself_and_is_followed_only_after_its_lease() {
    let scratch = ScratchDatabase::create().await;
    let database = scratch.connect().await;
    let proxy = Proxy::before(&scratch).await;
    let ttl = Duration::from_secs(3);
    let silent = join(&proxy.database().await, options("silent", ttl)).await;
    let other = join(&database, options("other", ttl)).await;
    let (mut one, mut two) = (silent.owned(), other.owned());
    until_owns(&mut two, 32).await;
    until_owns(&mut one, 32).await;
    proxy.hold();
    let mine: Vec<i32> = one.borrow().epochs.keys().map(|shard| i32::from(*shard)).collect();

    let mut expires_at = None;
    while count(&two) < 64 {
        let sql = "select count(*) filter (where owner = (select member from owners \
             where name = 'other')), max(expires_at) filter (where owner = (select member \
             from owners where name = 'silent')), clock_timestamp() from shards \
             where shard = any ($1)";
        let (taken, lease, now): (i64, Option<chrono::DateTime<Utc>>, chrono::DateTime<Utc>) =
            sqlx::query_as(sql)
                .bind(&mine)
                .fetch_one(database.pool())
                .await
                .expect("shards can be read");
        expires_at = lease.or(expires_at);
        if taken > 0 {
            let expires_at = expires_at.expect("the lease was seen before");
            assert!(now >= expires_at, "taken at {now}, leased until {expires_at}");
            assert_eq!(count(&one), 0, "the silent member still believes that it owns something");
        }
        assert!(expires_at.is_none_or(|end| now < end + BOUND), "nobody takes them");
    }
    // It comes back under new epochs.
    let before = two.borrow().epochs.clone();
    proxy.release();
    until_owns(&mut one, 32).await;
    assert!(one.borrow().epochs.iter().all(|(shard, epoch)| before.get(shard) < Some(epoch)));
}

/// By the monotonic clock alone: nobody else is there to take anything.
#[tokio::test]
async fn a_member_that_cant_renew_gives_up_after_two_thirds_of_the_lease() {
    let scratch = ScratchDatabase::create().await;
    let proxy = Proxy::before(&scratch).await;
    let ttl = Duration::from_secs(3);
    let member = join(&proxy.database().await, options("alone", ttl)).await;
    let mut owned = member.owned();
    until_owns(&mut owned, 64).await;
    let begun = std::time::Instant::now();
    proxy.hold();
    until_owns(&mut owned, 0).await;
    let took = begun.elapsed();
    assert!(took > ttl / 3 && took < ttl, "given up after {took:?}");
    proxy.release();
    until_owns(&mut owned, 64).await;
    assert!(owned.borrow().epochs.values().all(|epoch| *epoch == 2), "{:?}", owned.borrow());
}

/// Only who takes a shard needs the head's lock, and it doesn't wait for it for ever.
#[tokio::test]
async fn leases_are_renewed_while_the_head_is_locked() {
    let scratch = ScratchDatabase::create().await;
    let database = scratch.connect().await;
    let ttl = Duration::from_secs(3);
    let first = join(&database, options("first", ttl)).await;
    let (mut one, begun) = (first.owned(), std::time::Instant::now());
    until_owns(&mut one, 64).await;
    let epochs = one.borrow().epochs.clone();
    let mut locked = database.pool().begin().await.expect("a transaction begins");
    sqlx::query("select from journal_head for update")
        .execute(&mut *locked)
        .await
        .expect("it can be locked");
    let second = join(&database, options("second", ttl)).await;
    until_owns(&mut one, 32).await;
    // It lasts longer than any lease that isn't renewed.
    while begun.elapsed() < ttl + Duration::from_secs(1) {
        let kept = one.borrow().epochs.clone();
        assert!(kept.iter().all(|(shard, epoch)| epochs[shard] == *epoch));
        assert_eq!((kept.len(), count(&second.owned())), (32, 0));
        tokio::task::yield_now().await;
    }
    locked.rollback().await.expect("it can be given up");
    until_owns(&mut second.owned(), 32).await;
}

#[tokio::test]
async fn a_frozen_owners_append_is_fenced() {
    let scratch = ScratchDatabase::create().await;
    let database = scratch.connect().await;
    let journal = PostgresJournal::open(&database, PostgresOptions::default()).await;
    let journal = journal.expect("the journal can be opened");
    let proxy = Proxy::before(&scratch).await;
    let ttl = Duration::from_secs(3);
    let frozen = join(&proxy.database().await, options("frozen", ttl)).await;
    let mut owned = frozen.owned();
    until_owns(&mut owned, 64).await;
    let old = owned.borrow().epochs[&7];
    assert!(journal.append(append("a", 0, 7, old)).await.is_ok());
    proxy.hold();
    let other = join(&database, options("other", ttl)).await;
    until_owns(&mut other.owned(), 64).await;
    let fenced = journal.append(append("a", 1, 7, old)).await;
    assert_eq!(fenced, Err(AppendError::Fenced { shard: 7 }));
    let new = other.owned().borrow().epochs[&7];
    assert_eq!(journal.append(append("a", 1, 7, new)).await.map(|done| done.last_sequence), Ok(2));
    journal.close().await;
}

#[tokio::test]
async fn a_lost_shard_is_dropped_at_once_and_comes_back_under_a_new_epoch() {
    let scratch = ScratchDatabase::create().await;
    let database = scratch.connect().await;
    let member = join(&database, long("member")).await;
    let mut owned = member.owned();
    until_owns(&mut owned, 64).await;
    let epoch = owned.borrow().epochs[&3];
    member.lost(3, epoch + 1);
    assert_eq!(count(&owned), 64, "another epoch's loss isn't this one's");
    member.lost(3, epoch);
    let back = owned.wait_for(|owned| owned.epochs.get(&3) == Some(&(epoch + 1)));
    tokio::time::timeout(BOUND, back).await.expect("it comes back").expect("the member lives");
    assert_eq!(count(&owned), 64);
    let watcher = member.owned();
    drop(member);
    assert_eq!(count(&watcher), 0, "who is gone owns nothing");
}

/// Members come, leave, lose shards and vanish; all that they ever believe is noted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_ever_owns_a_shard_under_the_epoch_of_another() {
    let scratch = ScratchDatabase::create().await;
    let database = scratch.connect().await;
    let (mut members, mut notes) = (Vec::new(), Vec::new());
    let mut choices: u64 = 0x5eed;
    let ttl = Duration::from_millis(300);
    for turn in 0..40 {
        choices = choices.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let choice = choices >> 33;
        if members.len() < 4 {
            let member = join(&database, options(&format!("member {turn}"), ttl)).await;
            notes.push(tokio::spawn(note(member.owned())));
            members.push(member);
        }
        let index = usize::try_from(choice).expect("it fits") % members.len();
        match choice % 5 {
            0 => members.swap_remove(index).leave().await,
            1 => drop(members.swap_remove(index)),
            2 => {
                let known = members[index].owned().borrow().epochs.clone();
                known.iter().take(3).for_each(|(shard, epoch)| members[index].lost(*shard, *epoch));
            }
            _ => members[index].look(),
        }
        // Something happens before the next turn: somebody owns something else.
        if let Some(member) = members.first() {
            let mut owned = member.owned();
            tokio::time::timeout(ttl / 2, owned.changed()).await.ok();
        }
    }
    for member in members {
        member.leave().await;
    }
    let mut owners: HashMap<(u16, u64), usize> = HashMap::new();
    for (member, noted) in notes.into_iter().enumerate() {
        for owned in noted.await.expect("the watcher ran") {
            let owner = *owners.entry(owned).or_insert(member);
            assert_eq!(owner, member, "two members owned {owned:?}");
        }
    }
    assert!(owners.keys().any(|(_, epoch)| *epoch > 5), "nothing has changed hands");
}

async fn note(mut owned: Ownership) -> HashSet<(u16, u64)> {
    let mut noted = HashSet::new();
    let mut newest: BTreeMap<u16, u64> = BTreeMap::new();
    loop {
        for (shard, epoch) in &owned.borrow_and_update().epochs {
            let known = newest.entry(*shard).or_default();
            assert!(epoch >= known, "the epoch of shard {shard} has shrunk");
            *known = *epoch;
            noted.insert((*shard, *epoch));
        }
        if owned.changed().await.is_err() {
            return noted;
        }
    }
}

fn append(id: &str, expected_sequence: u64, shard: u16, epoch: u64) -> Append {
    Append {
        aggregate_type: "thing".into(),
        aggregate_id: id.into(),
        expected_sequence,
        workspace_id: "ws".into(),
        metadata: Bytes::from_static(b"{}"),
        recorded_at: Utc::now(),
        events: vec![NewEvent {
            id: Uuid::now_v7(),
            event_type: "thing.changed".into(),
            event_version: 1,
            payload: Bytes::from_static(b"{}"),
            recorded_at: None,
        }],
        shard,
        epoch: Some(epoch),
        ..Append::default()
    }
}

/// A way to the database that can be held up: what is sent then arrives later.
struct Proxy {
    options: DatabaseOptions,
    open: watch::Sender<bool>,
}

impl Proxy {
    async fn before(scratch: &ScratchDatabase) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let (server, name) = scratch.url().rsplit_once('/').expect("a URL has a path");
        let (role, address) = server.rsplit_once('@').expect("a URL has a role");
        let address = address.to_owned();
        let mut options = scratch.options();
        options.url = format!("{role}@127.0.0.1:{port}/{name}");
        options.connect_timeout = Duration::from_millis(500);
        let (open, is_open) = watch::channel(true);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&address).await.expect("the server is there");
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(pump(from_client, to_server, is_open.clone()));
                tokio::spawn(pump(from_server, to_client, is_open.clone()));
            }
        });
        Self { options, open }
    }

    async fn database(&self) -> Database {
        Database::connect(&self.options).await.expect("the database can be reached")
    }

    fn hold(&self) {
        self.open.send_replace(false);
    }

    fn release(&self) {
        self.open.send_replace(true);
    }
}

async fn pump(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut is_open: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if is_open.wait_for(|open| *open).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
