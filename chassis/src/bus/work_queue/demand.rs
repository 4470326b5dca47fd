//! What a puller has asked for and not got yet.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// How long the server keeps a request.
pub(super) const EXPIRES: Duration = Duration::from_secs(20);
/// How often the server gives a sign of life while a request waits.
pub(super) const BEAT: Duration = Duration::from_secs(1);
/// A server that gives none for so long has lost the request.
const SILENCE: Duration = Duration::from_millis(3_000);
/// How long the end of a request may be on its way.
const LATE: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy)]
struct Request {
    token: u64,
    count: usize,
    until: Instant,
}

/// Counts requests and what they bring.
#[derive(Debug)]
pub(super) struct Demand {
    outstanding: usize,
    requests: VecDeque<Request>,
    next: u64,
    heard: Instant,
}

impl Demand {
    pub(super) fn new(now: Instant) -> Self {
        Self { outstanding: 0, requests: VecDeque::new(), next: 0, heard: now }
    }

    /// Messages that may still come.
    pub(super) fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Requests that may still be answered.
    pub(super) fn requests(&self) -> usize {
        self.requests.len()
    }

    /// How many to ask for, so that not more than `limit` may come: nothing while half of it still
    /// may, so that requests stay few.
    pub(super) fn wants(&self, limit: usize) -> usize {
        if self.outstanding * 2 > limit { 0 } else { limit - self.outstanding }
    }

    /// The name of the next request.
    pub(super) fn token(&self) -> u64 {
        self.next
    }

    /// The next request was sent.
    pub(super) fn asked(&mut self, count: usize, now: Instant) {
        if self.outstanding == 0 {
            self.heard = now;
        }
        self.requests.push_back(Request { token: self.next, count, until: now + EXPIRES });
        self.outstanding += count;
        self.next += 1;
    }

    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    pub(super) fn delivered(&mut self) {
        self.outstanding = self.outstanding.saturating_sub(1);
        if self.outstanding == 0 {
            self.requests.clear();
        }
    }

    /// A request has ended; `pending` of its messages don't come, all of them where that isn't
    /// said.
    pub(super) fn ended(&mut self, token: u64, pending: Option<usize>) {
        if let Some(index) = self.requests.iter().position(|request| request.token == token)
            && let Some(request) = self.requests.remove(index)
        {
            let pending = pending.unwrap_or(request.count);
            self.outstanding = self.outstanding.saturating_sub(pending);
        }
        if self.requests.is_empty() {
            self.outstanding = 0;
        }
    }

    /// Forgets requests whose end must have got lost.
    pub(super) fn expire(&mut self, now: Instant) {
        while self.requests.front().is_some_and(|request| request.until + LATE < now) {
            self.requests.pop_front();
        }
        if self.requests.is_empty() {
            self.outstanding = 0;
        }
    }

    /// When the server has been silent for too long, if nothing comes.
    pub(super) fn silent_at(&self) -> Option<Instant> {
        (self.outstanding > 0).then(|| self.heard + SILENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_more_than_the_limit_may_come() {
        let now = Instant::now();
        let mut demand = Demand::new(now);
        assert_eq!(demand.wants(8), 8);
        demand.asked(8, now);
        assert_eq!(demand.wants(8), 0);
        for _ in 0..3 {
            demand.delivered();
        }
        assert_eq!((demand.outstanding(), demand.wants(8)), (5, 0));
        demand.delivered();
        assert_eq!(demand.wants(8), 4);
        demand.asked(4, now);
        assert_eq!((demand.outstanding(), demand.requests()), (8, 2));
        // The first one ends with four of its messages undelivered.
        demand.ended(0, Some(4));
        assert_eq!((demand.outstanding(), demand.wants(8)), (4, 4));
        assert_eq!(demand.wants(1), 0);
        demand.ended(1, None);
        assert_eq!((demand.outstanding(), demand.wants(1)), (0, 1));
    }

    #[test]
    fn requests_without_an_end_are_forgotten() {
        let now = Instant::now();
        let mut demand = Demand::new(now);
        assert_eq!(demand.silent_at(), None);
        demand.asked(3, now);
        demand.expire(now + EXPIRES);
        assert_eq!((demand.outstanding(), demand.silent_at()), (3, Some(now + SILENCE)));
        demand.expire(now + EXPIRES + LATE * 2);
        assert_eq!((demand.outstanding(), demand.silent_at()), (0, None));
    }
}
