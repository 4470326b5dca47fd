//! Bounded waits: for a condition, and for anything that takes time.

use std::time::Duration;

use tokio::time::MissedTickBehavior;

/// How long anything may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a condition is looked at.
const EVERY: Duration = Duration::from_millis(10);

/// Waits until the condition holds (it answers `Some`), and answers what it found.
///
/// # Panics
/// When it doesn't hold within a minute.
pub async fn wait_for<T, F>(what: &str, condition: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    looked_at(EVERY, PATIENCE, what, condition).await
}

/// The same with a bound of the caller's, for what takes its time: it looks less often.
///
/// # Panics
/// When it doesn't hold within `patience`.
pub async fn wait_within<T, F>(patience: Duration, what: &str, condition: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    looked_at(5 * EVERY, patience, what, condition).await
}

async fn looked_at<T, F>(
    every: Duration,
    patience: Duration,
    what: &str,
    mut condition: impl FnMut() -> F,
) -> T
where
    F: Future<Output = Option<T>>,
{
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let holds = async {
        loop {
            ticks.tick().await;
            if let Some(found) = condition().await {
                return found;
            }
        }
    };
    match tokio::time::timeout(patience, holds).await {
        Ok(found) => found,
        Err(_) => panic!("waited {patience:?} in vain for {what}"),
    }
}

/// Awaits something, but not for ever.
///
/// # Panics
/// When it takes more than a minute.
pub async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(done) => done,
        Err(_) => panic!("waited {PATIENCE:?} in vain for {what}"),
    }
}

/// Moments that nobody can foresee but that are the same in every run of a test: how long the
/// platform is left alone before the next blow.
#[derive(Debug, Clone)]
pub struct Pace {
    state: u64,
}

impl Pace {
    /// The moments of a seed.
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next number below a bound.
    pub fn below(&mut self, bound: u64) -> u64 {
        // SplitMix64 (Steele, Lea, Flood 2014): a full period whatever the seed.
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }

    /// Lets a random time of at most `most_ms` milliseconds pass.
    pub async fn pause(&mut self, most_ms: u64) {
        let pause_ms = 1 + self.below(most_ms);
        self.pause_exactly(pause_ms).await;
    }

    /// Lets a time pass: how long something is left broken.
    pub async fn pause_exactly(&mut self, pause_ms: u64) {
        let pause = Duration::from_millis(pause_ms.max(1));
        let end = tokio::time::Instant::now() + pause;
        tokio::time::interval_at(end, pause).tick().await;
    }
}
