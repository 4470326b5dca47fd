//! Closed loops: so many clients, each asks again as soon as it has its answer.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::ensure;
use futures::future::try_join_all;

use super::http::{Connection, Prepared};

/// What a loop took.
#[derive(Debug, Clone)]
pub(super) struct Taken {
    pub(super) whole: Duration,
    /// Of each request, sorted.
    pub(super) each: Vec<Duration>,
}

/// Sends the request `n` times over `clients` connections. Each answer must be 2xx and contain
/// `expect`.
pub(super) async fn closed_loop(
    address: &str,
    request: &Prepared,
    clients: u32,
    n: u64,
    expect: &str,
) -> anyhow::Result<Taken> {
    let clients = u32::try_from(n).map_or(clients, |n| clients.min(n));
    let left = Cell::new(n);
    let goes_on = || {
        let is_left = left.get() > 0;
        left.set(left.get().saturating_sub(1));
        is_left
    };
    loop_while(address, request, clients, expect, goes_on).await
}

/// The same for as long as `goes_on`, which is asked before each request.
pub(super) async fn loop_while(
    address: &str,
    request: &Prepared,
    clients: u32,
    expect: &str,
    goes_on: impl Fn() -> bool,
) -> anyhow::Result<Taken> {
    let mut connections = Vec::new();
    for _ in 0..clients {
        connections.push(Connection::open(address).await?);
    }
    let begun = Instant::now();
    let goes_on = &goes_on;
    let loops = connections.into_iter().map(|mut connection| async move {
        let mut each = Vec::new();
        while goes_on() {
            let asked = Instant::now();
            let (status, body) = connection.ask(request).await?;
            each.push(asked.elapsed());
            let fits = (200..300).contains(&status)
                && body.windows(expect.len()).any(|window| window == expect.as_bytes());
            ensure!(fits, "status {status}: {}", excerpt(body));
        }
        Ok::<_, anyhow::Error>(each)
    });
    let mut each: Vec<_> = try_join_all(loops).await?.into_iter().flatten().collect();
    let whole = begun.elapsed();
    each.sort_unstable();
    Ok(Taken { whole, each })
}

impl Taken {
    /// The time that `percent` of the requests stayed under.
    pub(super) fn percentile(&self, percent: usize) -> Duration {
        let at = (self.each.len() * percent).div_ceil(100).clamp(1, self.each.len().max(1));
        self.each.get(at - 1).copied().unwrap_or_default()
    }
}

fn excerpt(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_times() {
        let each = (1..=200).map(Duration::from_millis).collect();
        let taken = Taken { whole: Duration::ZERO, each };
        assert_eq!(taken.percentile(50), Duration::from_millis(100));
        assert_eq!(taken.percentile(99), Duration::from_millis(198));
        let one = Taken { whole: Duration::ZERO, each: vec![Duration::from_millis(3)] };
        assert_eq!(one.percentile(99), Duration::from_millis(3));
    }
}
