//! Tasks on their way to workers: fair turns between runs, and caps on what is in flight.
//!
//! What a run has in flight stands before every other run's next task in the queue to the workers.
//! So a run has no more there than is taken in [`LATE`]: its window shrinks where outcomes are
//! decided on later than their work took, and opens again where they aren't (the rule of TCP Vegas,
//! by the delay and not by losses; Brakmo and Peterson 1995). Work that takes long isn't late, and
//! neither is what waits for the run's append before it.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use domain::ids::RunId;
use protocol::shard_of;
use tokio::time::Instant;

/// Attempts that one run may hand out before the next run has its turn.
pub(super) const TURN: usize = 16;

/// How much longer than its work and its run's append an attempt may be away before its run has too
/// much in flight.
const LATE: Duration = Duration::from_millis(10);
/// Attempts that a run may have in flight however late they come back: enough for a worker of
/// each of a few processes to have the next one at hand.
const LEAST_WINDOW: usize = 2 * TURN;

/// How often in a row an attempt has to be missed before it is handed out again: its outcome may be
/// on the way while its task has left the queue already.
const MISSED: u32 = 2;
/// The same where an outcome waits that may be the attempt's. Outcomes are taken at once; one that
/// isn't must not hold up others for ever.
const DOUBTED: u32 = 12;

/// What a look for an attempt came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// Its task waits, or is on a worker.
    Found,
    /// Its task is gone, and its outcome may be among those that wait.
    Doubtful,
    Missing,
}

/// What follows from looks for an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whereabouts {
    /// It is where it should be, or is no longer waited for.
    InPlace,
    /// It may be lost: the next look decides, and needn't wait long.
    InDoubt,
    /// It has to be handed out again.
    Lost,
}

pub(crate) use protocol::remote::AttemptId as Attempt;

/// What one worker of the coordinator has handed out, and what is ready to be.
#[derive(Debug)]
pub(super) struct Dispatch {
    limit: usize,
    in_flight: usize,
    runs: HashMap<RunId, Attempts>,
    /// Runs with ready attempts and room in their own cap, each once, in the order of turns.
    turns: VecDeque<RunId>,
}

#[derive(Debug, Default)]
struct Attempts {
    /// How many may be on workers at the same time.
    limit: usize,
    /// The same, for the others' sake; `None` where nothing has come back late.
    window: Option<usize>,
    /// When the window last shrank: what was handed out before says nothing of the new one.
    shrank_at: Option<Instant>,
    ready: VecDeque<(u64, u32)>,
    in_flight: HashMap<(u64, u32), Flight>,
    /// When what has come back and isn't decided on was handed out, and how long its work took.
    undecided: VecDeque<(Instant, Duration)>,
    has_turn: bool,
}

/// An attempt that is on a worker, or on its way there or back.
#[derive(Debug, Clone, Copy)]
struct Flight {
    /// `None` where another coordinator handed it out.
    since: Option<Instant>,
    /// How often in a row its task was nowhere to be found.
    missed: u32,
    /// How often in a row it, or an outcome of it, was nowhere to be found.
    gone: u32,
}

impl Attempts {
    /// How many more may be handed out now. One always may be where none is in flight: an outcome may
    /// have been lost with its run's memory, and is decided on by nobody then.
    fn room(&self) -> usize {
        let most = self.window.map_or(self.limit, |window| window.min(self.limit));
        let away = self.in_flight.len() + self.undecided.len();
        most.saturating_sub(away).max(usize::from(self.in_flight.is_empty()))
    }

    /// Learns from an attempt that was decided on how much may be in flight.
    fn learn(&mut self, since: Instant, took: Duration, late: Duration) {
        let delay = since.elapsed().saturating_sub(took);
        let is_news = self.shrank_at.is_none_or(|shrank_at| since >= shrank_at);
        if delay > late {
            if is_news {
                // So many would have been late by no more than is allowed.
                let share = (took + late).as_secs_f64() / (took + delay).as_secs_f64();
                let away = 1 + self.undecided.len() + self.in_flight.len();
                let window = away as f64 * share.max(0.5);
                self.window = Some((window.round() as usize).max(LEAST_WINDOW));
                self.shrank_at = Some(Instant::now());
            }
        } else if delay < late / 2
            && let Some(window) = self.window
            && !self.ready.is_empty()
        {
            // One for each that comes back: twice as many after a round.
            self.window = (window < self.limit).then_some(window + 1);
        }
    }
}

impl Dispatch {
    /// `limit` holds over all runs.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, in_flight: 0, runs: HashMap::new(), turns: VecDeque::new() }
    }

    /// An attempt waits for its turn; nothing where it is on a worker already. `limit` (at least
    /// 1) is how many attempts of the run may be on workers at the same time from now on.
    pub(super) fn ready(&mut self, run_id: RunId, limit: usize, token: u64, attempt: u32) {
        let attempts = self.runs.entry(run_id).or_default();
        attempts.limit = limit;
        if !attempts.in_flight.contains_key(&(token, attempt)) {
            attempts.ready.push_back((token, attempt));
            self.give_turn(run_id);
        }
    }

    /// Takes the next run's turn: the attempts to hand out now. Empty where nothing is ready or
    /// the caps are reached.
    pub(super) fn next_turn(&mut self) -> Option<(RunId, Vec<(u64, u32)>)> {
        let room = self.limit.saturating_sub(self.in_flight);
        if room == 0 {
            return None;
        }
        let (run_id, attempts) = loop {
            let run_id = self.turns.pop_front()?;
            if let Some(attempts) = self.runs.get_mut(&run_id) {
                break (run_id, attempts);
            }
        };
        attempts.has_turn = false;
        let count = attempts.ready.len().min(room).min(attempts.room()).min(TURN);
        let turn: Vec<_> = attempts.ready.drain(..count).collect();
        let flight = Flight { since: Some(Instant::now()), missed: 0, gone: 0 };
        for one in &turn {
            self.in_flight += usize::from(attempts.in_flight.insert(*one, flight).is_none());
        }
        self.give_turn(run_id);
        Some((run_id, turn))
    }

    /// Whether a run may have attempts to hand out.
    pub(super) fn has_turns(&self) -> bool {
        !self.turns.is_empty()
    }

    /// An outcome came, of work that took so long.
    pub(super) fn outcome(&mut self, run_id: RunId, token: u64, attempt: u32, took: Duration) {
        if let Some(attempts) = self.runs.get_mut(&run_id)
            && let Some(Flight { since: Some(since), .. }) =
                attempts.in_flight.get(&(token, attempt))
        {
            let since = *since;
            attempts.undecided.push_back((since, took));
        }
        self.back(run_id, token, attempt);
    }

    /// An attempt came back (or wasn't handed out after all).
    pub(super) fn back(&mut self, run_id: RunId, token: u64, attempt: u32) {
        let Some(attempts) = self.runs.get_mut(&run_id) else { return };
        if attempts.in_flight.remove(&(token, attempt)).is_some() {
            self.in_flight -= 1;
        }
        if attempts.in_flight.is_empty() && attempts.ready.is_empty() {
            if !attempts.has_turn {
                self.runs.remove(&run_id);
            }
        } else {
            self.give_turn(run_id);
        }
    }

    /// All but so many of the outcomes of a run are decided on. `append` is what the run's last
    /// append took, and its rest after it.
    pub(super) fn decided(&mut self, run_id: RunId, left: usize, append: Duration) {
        let Some(attempts) = self.runs.get_mut(&run_id) else { return };
        let count = attempts.undecided.len().saturating_sub(left);
        for _ in 0..count {
            if let Some((since, took)) = attempts.undecided.pop_front() {
                attempts.learn(since, took, LATE + append);
            }
        }
        if count > 0 {
            self.give_turn(run_id);
        }
    }

    /// An attempt of a run that was taken over: it may be on a worker already.
    pub(super) fn out(&mut self, run_id: RunId, limit: usize, token: u64, attempt: u32) {
        let attempts = self.runs.entry(run_id).or_default();
        attempts.limit = limit;
        let flight = Flight { since: None, missed: 0, gone: 0 };
        self.in_flight +=
            usize::from(attempts.in_flight.insert((token, attempt), flight).is_none());
    }

    /// Whether an attempt is on a worker, as far as is known.
    pub(super) fn is_out(&self, run_id: RunId, token: u64, attempt: u32) -> bool {
        let attempts = self.runs.get(&run_id);
        attempts.is_some_and(|one| one.in_flight.contains_key(&(token, attempt)))
    }

    /// Attempts that nothing was heard of for some time.
    pub(super) fn unheard(&self, time: Duration) -> Vec<Attempt> {
        let is_due = |flight: &Flight| flight.since.is_none_or(|since| since.elapsed() >= time);
        let of_run = |(run_id, attempts): (&RunId, &Attempts)| {
            let due = attempts.in_flight.iter().filter(|(_, flight)| is_due(flight));
            due.map(|((token, attempt), _)| (*run_id, *token, *attempt)).collect::<Vec<_>>()
        };
        let mut unheard: Vec<_> = self.runs.iter().flat_map(of_run).collect();
        unheard.sort_unstable();
        unheard
    }

    /// Notes what a look for an attempt came to.
    pub(super) fn looked_for(&mut self, attempt: Attempt, look: Look) -> Whereabouts {
        let (run_id, token, number) = attempt;
        let flight =
            self.runs.get_mut(&run_id).and_then(|one| one.in_flight.get_mut(&(token, number)));
        let Some(flight) = flight else { return Whereabouts::InPlace };
        flight.missed = if look == Look::Found { 0 } else { flight.missed + 1 };
        flight.gone = if look == Look::Missing { flight.gone + 1 } else { 0 };
        match (flight.missed, flight.gone) {
            (DOUBTED.., _) | (_, MISSED..) => Whereabouts::Lost,
            // An outcome that waits is taken at once, unless something is wrong.
            (1, _) | (_, 1..) => Whereabouts::InDoubt,
            _ => Whereabouts::InPlace,
        }
    }

    /// Forgets everything about the runs of a shard.
    pub(super) fn forget_shard(&mut self, shard: u16) {
        let mut in_flight = 0;
        self.runs.retain(|run_id, attempts| {
            let stays = shard_of(*run_id) != shard;
            in_flight += if stays { 0 } else { attempts.in_flight.len() };
            stays
        });
        self.in_flight -= in_flight;
    }

    /// A run has ended: nothing of it is handed out any more. What is on workers comes back.
    pub(super) fn forget_ready(&mut self, run_id: RunId) {
        if let Some(attempts) = self.runs.get_mut(&run_id) {
            attempts.ready.clear();
            if attempts.in_flight.is_empty() && !attempts.has_turn {
                self.runs.remove(&run_id);
            }
        }
    }

    /// Attempts of a run that nobody waits for any more don't count as on workers from now on;
    /// answers their tokens.
    pub(super) fn give_up(
        &mut self,
        run_id: RunId,
        is_owed: impl Fn(u64, u32) -> bool,
    ) -> Vec<u64> {
        let Some(attempts) = self.runs.get_mut(&run_id) else { return Vec::new() };
        let gone = |flight: &&(u64, u32)| !is_owed(flight.0, flight.1);
        let mut gone: Vec<_> = attempts.in_flight.keys().filter(gone).copied().collect();
        gone.sort_unstable();
        for (token, attempt) in &gone {
            self.back(run_id, *token, *attempt);
        }
        gone.into_iter().map(|(token, _)| token).collect()
    }

    /// Whether a run has attempts that wait for a turn.
    pub(super) fn has_ready(&self, run_id: RunId) -> bool {
        self.runs.get(&run_id).is_some_and(|attempts| !attempts.ready.is_empty())
    }

    /// Attempts on workers.
    pub(super) const fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn give_turn(&mut self, run_id: RunId) {
        let Some(attempts) = self.runs.get_mut(&run_id) else { return };
        if !attempts.has_turn && attempts.room() > 0 && !attempts.ready.is_empty() {
            attempts.has_turn = true;
            self.turns.push_back(run_id);
        } else if !attempts.has_turn && attempts.ready.is_empty() && attempts.in_flight.is_empty() {
            self.runs.remove(&run_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn run(number: u128) -> RunId {
        RunId::new(Uuid::from_u128(number))
    }

    #[test]
    fn runs_take_turns() {
        let mut dispatch = Dispatch::new(100);
        (1..=40).for_each(|token| dispatch.ready(run(1), 100, token, 1));
        dispatch.ready(run(2), 100, 1, 1);
        let turns: Vec<_> = std::iter::from_fn(|| dispatch.next_turn())
            .map(|(run_id, turn)| (run_id, turn.len()))
            .collect();
        assert_eq!(turns, [(run(1), 16), (run(2), 1), (run(1), 16), (run(1), 8)]);
    }

    #[test]
    fn caps_hold_and_open_again() {
        let mut dispatch = Dispatch::new(3);
        (1..=5).for_each(|token| dispatch.ready(run(1), 2, token, 1));
        (1..=5).for_each(|token| dispatch.ready(run(2), 2, token, 1));
        assert_eq!(dispatch.next_turn(), Some((run(1), vec![(1, 1), (2, 1)])));
        assert_eq!(dispatch.next_turn(), Some((run(2), vec![(1, 1)])));
        assert_eq!(dispatch.next_turn(), None);
        dispatch.back(run(1), 1, 1);
        dispatch.back(run(1), 1, 1);
        assert_eq!(dispatch.in_flight(), 2);
        assert!(dispatch.next_turn().is_some());
        assert_eq!(dispatch.next_turn(), None);
    }

    #[test]
    fn what_nobody_decides_on_holds_up_nothing() {
        let mut dispatch = Dispatch::new(1_000);
        (1..=3).for_each(|token| dispatch.ready(run(1), 1, token, 1));
        assert_eq!(dispatch.next_turn(), Some((run(1), vec![(1, 1)])));
        dispatch.outcome(run(1), 1, 1, Duration::ZERO);
        assert_eq!(dispatch.next_turn(), Some((run(1), vec![(2, 1)])));
        assert_eq!(dispatch.next_turn(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_for_an_append_is_not_late() {
        let mut dispatch = Dispatch::new(1_000);
        (1..=400).for_each(|token| dispatch.ready(run(1), 100, token, 1));
        let mut room_after = async |append: Duration| {
            round(&mut dispatch, Duration::from_millis(50), Duration::ZERO, append).await
        };
        assert_eq!(room_after(Duration::from_millis(40)).await, 100);
        assert_eq!(room_after(Duration::from_millis(20)).await, 60);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_decided_on_keeps_its_room() {
        let mut dispatch = Dispatch::new(1_000);
        (1..=40).for_each(|token| dispatch.ready(run(1), TURN, token, 1));
        assert_eq!(dispatch.next_turn().map(|(_, turn)| turn.len()), Some(TURN));
        (1..=4).for_each(|token| dispatch.outcome(run(1), token, 1, Duration::ZERO));
        assert_eq!(dispatch.next_turn(), None);
        dispatch.decided(run(1), 1, Duration::ZERO);
        assert_eq!(dispatch.next_turn().map(|(_, turn)| turn.len()), Some(3));
        dispatch.decided(run(1), 0, Duration::ZERO);
        assert_eq!(dispatch.next_turn().map(|(_, turn)| turn.len()), Some(1));
    }

    #[test]
    fn what_is_on_a_worker_is_not_handed_out_again() {
        let mut dispatch = Dispatch::new(10);
        dispatch.ready(run(1), 10, 1, 1);
        assert!(dispatch.next_turn().is_some());
        dispatch.ready(run(1), 10, 1, 1);
        assert_eq!(dispatch.next_turn(), None);
        dispatch.back(run(1), 1, 1);
        assert!(dispatch.runs.is_empty());
    }

    #[test]
    fn an_ended_run_hands_out_nothing() {
        let mut dispatch = Dispatch::new(10);
        dispatch.ready(run(1), 1, 1, 1);
        dispatch.ready(run(1), 1, 2, 1);
        assert!(dispatch.next_turn().is_some());
        dispatch.forget_ready(run(1));
        dispatch.back(run(1), 1, 1);
        assert_eq!(dispatch.next_turn(), None);
        assert!(dispatch.runs.is_empty() && dispatch.in_flight() == 0);
    }

    #[test]
    fn what_is_missed_again_and_again_is_lost() {
        use Look::{Doubtful, Found, Missing};
        use Whereabouts::{InDoubt, InPlace, Lost};
        let mut dispatch = Dispatch::new(3);
        let attempt = (run(1), 1, 1);
        assert_eq!(dispatch.looked_for(attempt, Look::Missing), InPlace);
        dispatch.out(run(1), 1, 1, 1);
        let looks = |dispatch: &mut Dispatch, looks: &[Look]| {
            looks.iter().map(|look| dispatch.looked_for(attempt, *look)).collect::<Vec<_>>()
        };
        let looked = looks(&mut dispatch, &[Missing, Doubtful, Missing, Found]);
        assert_eq!(looked, [InDoubt, InPlace, InDoubt, InPlace]);
        let looked = looks(&mut dispatch, &[Missing, Missing, Found]);
        assert_eq!(looked, [InDoubt, Lost, InPlace]);
        // Looked for soon once, and then at leisure.
        let looked = looks(&mut dispatch, &[Doubtful; 11]);
        assert_eq!((looked[0], &looked[1..]), (InDoubt, &[InPlace; 10][..]));
        assert_eq!(looks(&mut dispatch, &[Doubtful]), [Lost]);
    }

    #[test]
    fn what_nobody_waits_for_makes_room() {
        let mut dispatch = Dispatch::new(3);
        (1..=3).for_each(|token| dispatch.ready(run(1), 3, token, 1));
        dispatch.ready(run(2), 3, 1, 1);
        assert!(dispatch.next_turn().is_some());
        assert_eq!(dispatch.next_turn(), None);
        assert_eq!(dispatch.give_up(run(1), |token, _| token != 2), [2]);
        assert_eq!(dispatch.next_turn(), Some((run(2), vec![(1, 1)])));
        assert_eq!(dispatch.give_up(run(1), |_, _| false).len(), 2);
        assert_eq!((dispatch.in_flight(), dispatch.give_up(run(1), |_, _| false)), (1, vec![]));
    }

    /// Hands out what may be, lets so much time pass, and takes all back; how many are in flight
    /// when the next are handed out.
    async fn round(
        dispatch: &mut Dispatch,
        delay: Duration,
        took: Duration,
        append: Duration,
    ) -> usize {
        while dispatch.next_turn().is_some() {}
        tokio::time::advance(delay).await;
        let mut away: Vec<_> = dispatch.runs[&run(1)].in_flight.keys().copied().collect();
        away.sort_unstable();
        for (token, attempt) in away {
            dispatch.outcome(run(1), token, attempt, took);
        }
        dispatch.decided(run(1), 0, append);
        while dispatch.next_turn().is_some() {}
        dispatch.in_flight()
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_has_no_more_in_flight_than_comes_back_in_time() {
        const MS: Duration = Duration::from_millis(1);
        const ZERO: Duration = Duration::ZERO;
        let mut dispatch = Dispatch::new(10_000);
        (1..=20_000).for_each(|token| dispatch.ready(run(1), 500, token, 1));
        // Work that takes long leaves it as it is.
        assert_eq!(round(&mut dispatch, 2_000 * MS, 1_990 * MS, ZERO).await, 500);
        let late = round(&mut dispatch, 50 * MS, ZERO, ZERO).await;
        assert_eq!(late, 250);
        let later = round(&mut dispatch, LATE * 5 / 4, ZERO, ZERO).await;
        assert_eq!(later, 200);
        // Where workers are too few, some for each stay in flight.
        let few = round(&mut dispatch, 6_000 * MS, 2_000 * MS, ZERO).await;
        assert_eq!(few, 100);
        for _ in 0..20 {
            round(&mut dispatch, 50 * MS, ZERO, ZERO).await;
        }
        assert_eq!(dispatch.in_flight(), LEAST_WINDOW);
        let sooner = round(&mut dispatch, LATE / 4, ZERO, ZERO).await;
        assert!((LEAST_WINDOW + 1..=2 * LEAST_WINDOW).contains(&sooner), "{sooner}");
        for _ in 0..20 {
            round(&mut dispatch, LATE / 4, ZERO, ZERO).await;
        }
        assert_eq!(dispatch.in_flight(), 500);
    }

    #[test]
    fn each_run_has_a_cap_of_its_own() {
        let mut dispatch = Dispatch::new(100);
        (1..=5).for_each(|token| dispatch.ready(run(1), 1, token, 1));
        (1..=5).for_each(|token| dispatch.ready(run(2), 3, token, 1));
        assert_eq!(dispatch.next_turn(), Some((run(1), vec![(1, 1)])));
        assert_eq!(dispatch.next_turn().map(|(_, turn)| turn.len()), Some(3));
        assert_eq!(dispatch.next_turn(), None);
        dispatch.back(run(1), 1, 1);
        assert_eq!(dispatch.next_turn(), Some((run(1), vec![(2, 1)])));
    }
}
