//! What may happen any number of times, told a bounded number of times.
//!
//! Whatever is noted has a key. Of each key the first one is told at once, and those after it
//! together, with their number, once a minute. Of different keys so many are told apart in a
//! minute; the others are counted in one. Nothing waits for what is told: who notes goes on, and
//! what wasn't told yet is lost with the process.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long it is until what has the same key is told again.
const WINDOW: Duration = Duration::from_secs(60);
/// The pause before something is told that couldn't be.
const PAUSE: Duration = Duration::from_secs(1);
/// How long telling may take at the end.
const LAST: Duration = Duration::from_secs(2);

/// Something that happened, so many times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted<K, V> {
    /// What it is, with the first one of its window; absent of what isn't told apart.
    pub what: Option<(K, V)>,
    /// At least 1.
    pub count: u64,
    pub first_at: DateTime<Utc>,
    pub last_at: DateTime<Utc>,
}

/// What came of telling something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// It is done with.
    Done,
    /// It is to be told again, after a pause.
    Again,
}

/// Notes what happens, and tells it. See the module.
#[derive(Debug)]
pub struct Coalescer<K, V> {
    window: Mutex<Window<K, V>>,
    /// Different keys that are told apart in a minute.
    most: usize,
    noted: Notify,
}

impl<K: Ord + Clone, V: Clone> Coalescer<K, V> {
    /// Tells so many different keys apart in a minute.
    pub const fn new(most: usize) -> Self {
        let window = Window { apart: BTreeMap::new(), others: None };
        Self { window: Mutex::new(window), most, noted: Notify::const_new() }
    }

    /// Notes that something happened. `first` is asked where it is the first of its key.
    pub fn note(&self, key: K, at: DateTime<Utc>, first: impl FnOnce() -> V) {
        if self.window().note(self.most, key, at, first) {
            self.noted.notify_one();
        }
    }

    /// Tells what is noted until `stop`, and then what is left, once. What is told comes one after
    /// the other; meanwhile it is noted on.
    pub async fn tell<F>(&self, stop: CancellationToken, tell: impl Fn(Counted<K, V>) -> F)
    where
        F: Future<Output = Told>,
    {
        let mut end = Instant::now() + WINDOW;
        while !stop.is_cancelled() {
            let (due, is_over) = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = tokio::time::sleep_until(end) => (self.window().close(), true),
                () = self.noted.notified() => (self.window().fresh(), false),
            };
            for counted in due {
                while tell(counted.clone()).await == Told::Again && !stop.is_cancelled() {
                    let pause = tokio::time::sleep(PAUSE);
                    let _ = stop.run_until_cancelled(pause).await;
                }
            }
            if is_over {
                end = Instant::now() + WINDOW;
            }
        }
        let rest = async {
            let rest = self.window().close();
            for counted in rest {
                let _ = tell(counted).await;
            }
        };
        if tokio::time::timeout(LAST, rest).await.is_err() {
            tracing::warn!("not all that was counted could be told at the end");
        }
    }

    fn window(&self) -> MutexGuard<'_, Window<K, V>> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was noted since the last window was closed.
#[derive(Debug)]
struct Window<K, V> {
    apart: BTreeMap<K, (V, Tally)>,
    /// What isn't told apart.
    others: Option<Tally>,
}

/// How often something happened since it was told.
#[derive(Debug, Clone, Copy)]
struct Tally {
    count: u64,
    first_at: DateTime<Utc>,
    last_at: DateTime<Utc>,
    /// It was told in this window.
    is_told: bool,
}

impl Tally {
    const fn one(at: DateTime<Utc>) -> Self {
        Self { count: 1, first_at: at, last_at: at, is_told: false }
    }

    fn add(&mut self, at: DateTime<Utc>) {
        let first_at = if self.count == 0 { at } else { self.first_at };
        *self = Self { count: self.count + 1, first_at, last_at: at, ..*self };
    }

    const fn counted<K, V>(self, what: Option<(K, V)>) -> Counted<K, V> {
        let Self { count, first_at, last_at, .. } = self;
        Counted { what, count, first_at, last_at }
    }
}

impl<K: Ord + Clone, V: Clone> Window<K, V> {
    /// Whether it is to be told at once.
    fn note(&mut self, most: usize, key: K, at: DateTime<Utc>, first: impl FnOnce() -> V) -> bool {
        if let Some((_, tally)) = self.apart.get_mut(&key) {
            tally.add(at);
            return false;
        }
        if self.apart.len() < most {
            self.apart.insert(key, (first(), Tally::one(at)));
            return true;
        }
        match &mut self.others {
            Some(others) => others.add(at),
            None => self.others = Some(Tally::one(at)),
        }
        false
    }

    /// What wasn't told in this window.
    fn fresh(&mut self) -> Vec<Counted<K, V>> {
        let untold = self.apart.iter_mut().filter(|(_, (_, tally))| !tally.is_told);
        let tell = |(key, (value, tally)): (&K, &mut (V, Tally))| {
            let counted = tally.counted(Some((key.clone(), value.clone())));
            (tally.count, tally.is_told) = (0, true);
            counted
        };
        untold.map(tell).collect()
    }

    /// What is still to be told of this window. Another one begins.
    fn close(&mut self) -> Vec<Counted<K, V>> {
        let apart = std::mem::take(&mut self.apart).into_iter();
        let apart = apart.map(|(key, (value, tally))| tally.counted(Some((key, value))));
        let others = self.others.take().map(|others| others.counted(None));
        apart.chain(others).filter(|counted| counted.count > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::mpsc;

    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).expect("a time")
    }

    fn window() -> Window<u64, i64> {
        Window { apart: BTreeMap::new(), others: None }
    }

    #[test]
    fn each_is_counted_once_and_what_is_told_is_bounded() {
        let (mut window, mut told, mut events) = (window(), 0, 0);
        let mut seed = 1_u64;
        for round in 0..200 {
            for _ in 0..50 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                window.note(8, (seed >> 33) % 30, at(round), || round);
            }
            let due = if round % 10 == 9 { window.close() } else { window.fresh() };
            events += due.len();
            told += due.iter().map(|counted| counted.count).sum::<u64>();
            assert!(due.iter().all(|counted| counted.first_at <= counted.last_at));
            assert!(due.iter().all(|counted| counted.count > 0));
        }
        assert_eq!(told, 200 * 50);
        assert!(events <= 20 * (8 + 8 + 1), "{events}");
    }

    #[test]
    fn the_first_is_told_at_once_and_the_others_together() {
        let mut window = window();
        assert!(window.note(1, 7, at(1), || 1));
        assert!(!window.note(1, 7, at(2), || 2));
        assert!(!window.note(1, 8, at(3), || 3), "it isn't told apart");
        let (count, first_at, last_at) = (2, at(1), at(2));
        assert_eq!(window.fresh(), [Counted { what: Some((7, 1)), count, first_at, last_at }]);
        assert_eq!(window.fresh(), []);
        window.note(1, 7, at(4), || 4);
        let rest = window.close();
        let (first_at, last_at) = (at(4), at(4));
        let apart = Counted { what: Some((7, 1)), count: 1, first_at, last_at };
        let (first_at, last_at) = (at(3), at(3));
        assert_eq!(rest, [apart, Counted { what: None, count: 1, first_at, last_at }]);
        assert!(window.note(1, 8, at(5), || 5));
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_told_is_told_again_and_the_rest_at_the_end() {
        let coalescer = Arc::new(Coalescer::new(4));
        let (told, mut seen) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let telling = {
            let (coalescer, stop) = (Arc::clone(&coalescer), stop.clone());
            tokio::spawn(async move {
                let failures = Mutex::new(2);
                let tell = |counted: Counted<&'static str, ()>| {
                    let mut left = failures.lock().expect("lock");
                    let again = *left > 0;
                    *left -= i32::from(again);
                    if !again {
                        told.send((counted.what.map(|(key, ())| key), counted.count))
                            .expect("sent");
                    }
                    std::future::ready(if again { Told::Again } else { Told::Done })
                };
                coalescer.tell(stop, tell).await;
            })
        };
        coalescer.note("a", at(1), || ());
        assert_eq!(seen.recv().await, Some((Some("a"), 1)));
        coalescer.note("a", at(2), || ());
        coalescer.note("a", at(3), || ());
        assert_eq!(seen.recv().await, Some((Some("a"), 2)), "a minute later");
        coalescer.note("a", at(4), || ());
        assert_eq!(seen.recv().await, Some((Some("a"), 1)), "another window");
        coalescer.note("a", at(5), || ());
        stop.cancel();
        telling.await.expect("it ends");
        assert_eq!(seen.recv().await, Some((Some("a"), 1)));
    }
}
