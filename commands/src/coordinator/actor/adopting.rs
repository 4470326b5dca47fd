//! A run that was forked takes over what the other one has recorded, before anything is handed out.

use chrono::{DateTime, Utc};
use domain::run::fork::Forking;
use domain::run::{Command, Decision, Event, Owed, Refusal, Run};

use super::{Actor, Queued};

type Shared = Vec<(Event, DateTime<Utc>)>;

impl Actor {
    /// Begins with the history of another run. Answers what it shares, too.
    pub(super) fn fork(
        &mut self,
        mut forking: Forking,
        now: DateTime<Utc>,
    ) -> Result<(Decision, Shared), Refusal> {
        match forking.begin(&mut self.run, &self.plan.plan, now) {
            Ok(decision) => {
                self.adoption = Some(Box::new(forking.adoption));
                Ok((decision, forking.past.events()))
            }
            Err(refusal) => {
                self.run = Run::default();
                Err(refusal)
            }
        }
    }

    /// Decides, and goes on for as long as what is asked for then was recorded.
    pub(super) fn decide(
        &mut self,
        command: &Command,
        now: DateTime<Utc>,
    ) -> Result<Decision, Refusal> {
        let plan = &self.plan.plan;
        let decision = self.run.execute(plan, command, now)?;
        Ok(match &mut self.adoption {
            // It names the attempt that goes out now.
            _ if matches!(command, Command::HandOut { .. }) => decision,
            Some(adoption) => adoption.follow(&mut self.run, plan, now, decision),
            None => decision,
        })
    }

    /// What is owed to a run that was loaded. What was recorded is taken over in its next turn.
    pub(in crate::coordinator) fn owed(&mut self) -> Owed {
        let plan = &self.plan.plan;
        let mut owed = self.run.owed(plan);
        if let Some(adoption) = &mut self.adoption {
            let run = &self.run;
            let all = owed.attempts.len() + owed.children.len();
            owed.attempts
                .retain(|(token, attempt)| !adoption.offer(run, plan, *token, Some(*attempt)));
            owed.children.retain(|(token, _)| !adoption.offer(run, plan, *token, None));
            let live = run.live().filter(|live| live.waits.total() > 0);
            let waits = live.is_some();
            let tokens = live.map(|live| live.tokens.keys().copied().collect::<Vec<_>>());
            adoption.offer_waits(run, plan, tokens.unwrap_or_default());
            if waits || owed.attempts.len() + owed.children.len() < all {
                self.queue.push_back(Queued::Advance);
            }
        }
        owed
    }
}
