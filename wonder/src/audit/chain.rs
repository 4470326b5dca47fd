//! The audit chain, computed again and held against what was sealed and signed.

use std::collections::BTreeMap;

use chassis::journal::RecordedEvent;
use domain::audit::{AuditPublicKey, Chain, SignedHead};
use projections::{AuditTrail, Seal, recorded};
use protocol::Rejection;
use serde::Serialize;

use super::Report;
use super::report::Subject;

/// Seals and heads that are read at once.
const PAGE: u32 = 1_000;

/// What a journal is held against.
#[derive(Debug, Default)]
pub(crate) struct Evidence {
    /// The seals and heads that stand beside the journal, where there are any.
    pub(crate) trail: Option<AuditTrail>,
    /// Heads that were kept elsewhere.
    pub(crate) kept: Vec<SignedHead>,
    /// What signatures are checked with; without it they aren't.
    pub(crate) key: Option<AuditPublicKey>,
}

/// What came of it.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Sealed {
    /// The last position that stands in a seal beside the journal.
    pub(crate) position: u64,
    /// Heads that the chain was compared with, and the last position of one that agrees.
    pub(crate) heads: u64,
    pub(crate) signed_position: u64,
    /// Whether there was a key to check their signatures with.
    pub(crate) signatures_checked: bool,
}

/// The check under way.
#[derive(Debug)]
pub(super) struct ChainCheck<'a> {
    evidence: &'a Evidence,
    epoch: String,
    chain: Chain,
    heads: BTreeMap<u64, Vec<SignedHead>>,
    /// After the first difference all that follows is different.
    parted_from_seals: bool,
    parted_from_heads: bool,
}

impl<'a> ChainCheck<'a> {
    pub(super) fn new(evidence: &'a Evidence, epoch: u32, report: &mut Report) -> Self {
        report.sealed.signatures_checked = evidence.key.is_some();
        let mut check = Self {
            evidence,
            epoch: format!("{epoch:08x}"),
            chain: Chain::start(epoch),
            heads: BTreeMap::new(),
            parted_from_seals: false,
            parted_from_heads: false,
        };
        evidence.kept.iter().for_each(|head| check.expect(head.clone(), report));
        check
    }

    /// Takes a head for the position that it is about, if it is what it says it is.
    fn expect(&mut self, head: SignedHead, report: &mut Report) {
        let subject = Subject::position(head.position);
        if head.epoch != self.epoch {
            let problem = format!("a head of store {} isn't of this one", head.epoch);
            return report.find(subject, problem);
        }
        if self.evidence.key.as_ref().is_some_and(|key| !key.has_signed(&head)) {
            let problem = format!("the key did not sign the head of {}", head.signed_at);
            return report.find(subject, problem);
        }
        self.heads.entry(head.position).or_default().push(head);
    }

    /// Goes on over events that follow each other.
    pub(super) async fn follow(
        &mut self,
        events: &[RecordedEvent],
        report: &mut Report,
    ) -> Result<(), Rejection> {
        let Some(last) = events.last().map(|event| event.position) else { return Ok(()) };
        let mut seals = Vec::new();
        if let Some(trail) = &self.evidence.trail {
            // A seal has far more positions than one.
            seals = trail.seals(self.chain.position, PAGE.min(events.len() as u32)).await?;
            self.expect_heads(trail, self.chain.position, last, report).await?;
        }
        for event in events {
            // That positions follow each other is looked at elsewhere.
            let leaf = recorded(event).leaf();
            self.chain.follow(&leaf);
            let seal =
                seals.iter().find(|seal| (seal.first..=seal.last()).contains(&self.chain.position));
            if let Some(seal) = seal {
                self.hold_against_seal(event, seal, &leaf.mark(), report);
            }
            for head in self.heads.remove(&self.chain.position).unwrap_or_default() {
                self.hold_against_head(&head, report);
            }
        }
        Ok(())
    }

    async fn expect_heads(
        &mut self,
        trail: &AuditTrail,
        mut after: u64,
        last: u64,
        report: &mut Report,
    ) -> Result<(), Rejection> {
        loop {
            let heads = trail.heads(after, PAGE).await?;
            let is_last = heads.len() < PAGE as usize;
            for head in heads {
                if head.position > last {
                    return Ok(());
                }
                after = head.position;
                self.expect(head, report);
            }
            if is_last {
                return Ok(());
            }
        }
    }

    fn hold_against_seal(
        &mut self,
        event: &RecordedEvent,
        seal: &Seal,
        mark: &str,
        report: &mut Report,
    ) {
        report.sealed.position = self.chain.position;
        if self.parted_from_seals {
            return;
        }
        let number = usize::try_from(self.chain.position - seal.first).unwrap_or(usize::MAX);
        if seal.marks.get(number).is_none_or(|sealed| sealed != mark) {
            self.parted_from_seals = true;
            report.find(Subject::event(event), "it isn't the event that was sealed here");
        } else if self.chain.position == seal.last() && self.chain.hash.to_string() != seal.hash {
            self.parted_from_seals = true;
            report
                .find(Subject::event(event), "the chain up to here isn't the one that was sealed");
        }
    }

    fn hold_against_head(&mut self, head: &SignedHead, report: &mut Report) {
        report.sealed.heads += 1;
        if self.parted_from_heads {
            return;
        }
        if head.hash == self.chain.hash.to_string() {
            report.sealed.signed_position = head.position;
            return;
        }
        self.parted_from_heads = true;
        let problem = format!(
            "history up to here isn't what was signed at {}; up to position {} it is",
            head.signed_at, report.sealed.signed_position
        );
        report.find(Subject::position(head.position), problem);
    }

    /// The journal has no further event: what was sealed beyond is gone.
    pub(super) async fn finish(mut self, report: &mut Report) -> Result<(), Rejection> {
        let end = self.chain.position;
        if let Some(trail) = &self.evidence.trail {
            let mut beyond = end;
            loop {
                let seals = trail.seals(beyond, PAGE).await?;
                let Some(last) = seals.last().map(Seal::last) else { break };
                let is_last = seals.len() < PAGE as usize;
                beyond = beyond.max(last);
                if is_last {
                    break;
                }
            }
            if beyond > end {
                let problem = format!("events up to position {beyond} were sealed, and are gone");
                report.find(Subject::position(end + 1), problem);
            }
            let heads = trail.heads(end, 1).await?;
            heads.into_iter().for_each(|head| self.expect(head, report));
        }
        let beyond = self.heads.split_off(&(end + 1));
        if let Some((position, heads)) = beyond.into_iter().next_back()
            && let Some(head) = heads.first()
        {
            let problem = format!(
                "events up to position {position} were there when it was signed at {}, and are gone",
                head.signed_at
            );
            report.find(Subject::position(end + 1), problem);
        }
        Ok(())
    }
}
