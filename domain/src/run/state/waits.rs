//! The kinds of things that a run waits for, counted by token.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Live, Phase};

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitKind {
    /// A worker's outcome.
    Task,
    /// The time of a `wait` node.
    Timer,
    /// The time of the next attempt.
    Retry,
    Signal,
    /// People, at a gate.
    Gate,
    /// The end of a child run.
    Child,
    Mutex,
    /// The run's turn: nothing of it has begun.
    Queue,
}

impl WaitKind {
    /// All of them, in their order.
    pub const ALL: [Self; 8] = [
        Self::Task,
        Self::Timer,
        Self::Retry,
        Self::Signal,
        Self::Gate,
        Self::Child,
        Self::Mutex,
        Self::Queue,
    ];

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of kinds; in JSON a list of them, in their order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct WaitKinds(u8);

impl WaitKinds {
    /// What a run waits for of which nothing else is known: it works.
    pub const TASK: Self = Self(WaitKind::Task.bit());

    /// The kinds, in their order.
    pub fn iter(self) -> impl Iterator<Item = WaitKind> {
        WaitKind::ALL.into_iter().filter(move |kind| self.has(*kind))
    }

    /// Whether a kind is among them.
    pub const fn has(self, kind: WaitKind) -> bool {
        self.0 & kind.bit() != 0
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.0 == 0
    }

    /// A number with a bit for each kind, as tables keep them.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The kinds of such a number.
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }
}

impl FromIterator<WaitKind> for WaitKinds {
    fn from_iter<I: IntoIterator<Item = WaitKind>>(kinds: I) -> Self {
        Self(kinds.into_iter().fold(0, |bits, kind| bits | kind.bit()))
    }
}

impl Serialize for WaitKinds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for WaitKinds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Vec::<WaitKind>::deserialize(deserializer)?.into_iter().collect())
    }
}

/// How many tokens wait, by what they wait for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Waits(BTreeMap<WaitKind, u64>);

impl Waits {
    /// Whether no token waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many do.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    pub(in crate::run) fn begin(&mut self, kind: Option<WaitKind>) {
        if let Some(kind) = kind {
            *self.0.entry(kind).or_default() += 1;
        }
    }

    pub(in crate::run) fn end(&mut self, kind: Option<WaitKind>) {
        let Some(kind) = kind else { return };
        if let Some(count) = self.0.get_mut(&kind).filter(|count| **count > 1) {
            *count -= 1;
        } else {
            self.0.remove(&kind);
        }
    }
}

impl Phase {
    /// What a token waits for in this phase, where it isn't the node's work.
    pub const fn waits_for(&self) -> Option<WaitKind> {
        match self {
            Self::BackingOff { .. } => Some(WaitKind::Retry),
            Self::Waiting { signal: None, .. } => Some(WaitKind::Timer),
            Self::Waiting { signal: Some(_), .. } => Some(WaitKind::Signal),
            Self::Blocked { .. } => Some(WaitKind::Mutex),
            Self::Gated { .. } => Some(WaitKind::Gate),
            Self::AwaitingChild { .. } => Some(WaitKind::Child),
            Self::Working { .. } | Self::Succeeded { .. } | Self::Failed { .. } => None,
        }
    }
}

impl Live {
    /// What the run waits for: its turn, or what its tokens do. Never nothing.
    pub fn waiting_on(&self) -> WaitKinds {
        if self.in_queue.is_some() {
            return [WaitKind::Queue].into_iter().collect();
        }
        let works = (!self.all_wait()).then_some(WaitKind::Task);
        works.into_iter().chain(self.waits.0.keys().copied()).collect()
    }

    /// Whether nothing of it is on a worker or on its way there.
    pub(super) fn all_wait(&self) -> bool {
        !self.tokens.is_empty() && self.waits.total() == self.tokens.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_set_is_a_list_in_order_and_reads_back() {
        let kinds: WaitKinds =
            [WaitKind::Gate, WaitKind::Task, WaitKind::Gate].into_iter().collect();
        assert_eq!(serde_json::to_value(kinds).expect("JSON"), json!(["task", "gate"]));
        assert_eq!(
            serde_json::from_value::<WaitKinds>(json!(["gate", "task"])).expect("read"),
            kinds
        );
        assert_eq!(WaitKinds::from_bits(kinds.bits()), kinds);
        assert!(kinds.has(WaitKind::Gate) && !kinds.has(WaitKind::Queue) && !kinds.is_empty());
        let all: WaitKinds = WaitKind::ALL.into_iter().collect();
        assert_eq!(all.iter().collect::<Vec<_>>(), WaitKind::ALL);
        assert!(serde_json::from_value::<WaitKinds>(json!(["worker"])).is_err());
    }

    #[test]
    fn counts_end_at_nothing() {
        let mut waits = Waits::default();
        for kind in [WaitKind::Gate, WaitKind::Gate, WaitKind::Retry] {
            waits.begin(Some(kind));
        }
        waits.begin(None);
        assert_eq!((waits.total(), waits.is_empty()), (3, false));
        for kind in [WaitKind::Gate, WaitKind::Retry, WaitKind::Gate] {
            waits.end(Some(kind));
        }
        waits.end(None);
        assert_eq!(waits, Waits::default());
    }
}
