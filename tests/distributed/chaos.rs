//! Faults at random, for as long as is asked for, and then the offline check of what clients were
//! told: `make chaos DURATION=10m SEED=1`. The same seed gives the same faults in the same order;
//! what they meet differs. A short form runs with the other tests.

use std::time::{Duration, Instant};

use system_tests::{Pace, Platform, Shape, Traffic};

/// How long it goes on where nothing else is asked for.
const DURATION: Duration = Duration::from_secs(20);
const CLIENTS: u64 = 6;

/// What may be done to a platform. Each ends with everything running again.
#[derive(Debug, Clone)]
enum Fault {
    Kill { name: String, down_ms: u64 },
    Freeze { name: String, frozen_ms: u64 },
    Replace { name: String },
    KillAll,
    StopPostgres { down_ms: u64 },
    KillNats { down_ms: u64 },
    WipeNats,
    DeleteConsumers,
}

impl Fault {
    fn drawn(pace: &mut Pace, names: &[String]) -> Self {
        let place = usize::try_from(pace.below(names.len() as u64)).expect("a place in the list");
        let name = names[place].clone();
        match pace.below(16) {
            0..=4 => Self::Kill { name, down_ms: 1 + pace.below(8_000) },
            5..=8 => Self::Freeze { name, frozen_ms: 1 + pace.below(12_000) },
            9 | 10 => Self::Replace { name },
            11 => Self::KillAll,
            12 => Self::StopPostgres { down_ms: 1 + pace.below(4_000) },
            13 => Self::KillNats { down_ms: 1 + pace.below(6_000) },
            14 => Self::WipeNats,
            _ => Self::DeleteConsumers,
        }
    }

    async fn strike(self, platform: &mut Platform, pace: &mut Pace) {
        match self {
            Self::Kill { name, down_ms } => {
                platform.kill_one(&name).await;
                pace.pause(down_ms).await;
                platform.start_one(&name).await;
            }
            Self::Freeze { name, frozen_ms } => {
                platform.freeze(&name);
                pace.pause(frozen_ms).await;
                platform.thaw(&name);
            }
            Self::Replace { name } => {
                platform.stop_one(&name).await;
                platform.start_one(&name).await;
            }
            Self::KillAll => platform.restart().await,
            Self::StopPostgres { down_ms } => {
                platform.postgres().stop_immediately().await;
                pace.pause(down_ms).await;
                platform.postgres().start_again().await;
            }
            Self::KillNats { down_ms } => {
                platform.nats().kill_9().await;
                pace.pause(down_ms).await;
                platform.nats().start_again().await;
            }
            Self::WipeNats => platform.nats().wipe().await,
            Self::DeleteConsumers => {
                platform.nats().delete_consumers().await;
            }
        }
    }
}

/// `90`, `90s` or `10m`.
fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = match text.strip_suffix('m') {
        Some(minutes) => (minutes, 60),
        None => (text.strip_suffix('s').unwrap_or(text), 1),
    };
    Some(Duration::from_secs(number.parse::<u64>().ok()? * unit))
}

fn asked<T>(variable: &str, read: impl Fn(&str) -> Option<T>, otherwise: T) -> T {
    match std::env::var(variable) {
        Ok(text) => read(&text).unwrap_or_else(|| panic!("{variable} can't be {text:?}")),
        Err(_) => otherwise,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_broken_nothing_is_lost_and_nothing_is_done_twice() {
    let duration = asked("CHAOS_DURATION", duration, DURATION);
    let seed = asked("CHAOS_SEED", |text| text.parse().ok(), 1);
    eprintln!("seed {seed}, {duration:?}");
    let mut platform = crate::platform(Shape::whole().with_own_postgres()).await;
    let traffic = Traffic::start(&platform.client(), CLIENTS).await;
    let (begun, mut pace, names) = (Instant::now(), Pace::new(seed), platform.names());
    let mut faults = 0;
    while begun.elapsed() < duration {
        let fault = Fault::drawn(&mut pace, &names);
        eprintln!("{:>8.1?} {fault:?}", begun.elapsed());
        fault.strike(&mut platform, &mut pace).await;
        faults += 1;
        // Now and then the next one comes before this one is over.
        if pace.below(3) > 0 {
            traffic.progress(3).await;
        }
        eprintln!("{:>8.1?} {} runs have ended", begun.elapsed(), traffic.book().count("ended"));
    }
    traffic.progress(10).await;
    let report = crate::finish(&mut platform, traffic).await;
    eprintln!("{faults} faults with seed {seed}: {report}");
}
