//! Checking a bundle, line by line, in bounded memory.

use std::collections::BTreeMap;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{
    BUNDLE_FORMAT, End, EntryText, EventLine, LINE_BYTES, LeafLine, Line, Manifest, Place,
};
use crate::audit::{AuditPublicKey, Chain, Hash, SignedHead};
use crate::resource::Kind;

/// Findings that are listed; more are only counted.
const LISTED: usize = 100;

/// What isn't as it was exported, or as it happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The line of the bundle, from 1; one more than there are where something is missing at its
    /// end.
    pub line: u64,
    /// The position in history, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    pub problem: String,
}

/// What a check came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Whether there is no finding.
    pub ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<String>,
    /// Absent where all workspaces are told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace_id: Option<String>,
    /// The first position, and the last one that was reached.
    pub first: u64,
    pub last: u64,
    /// Events that are told, and those of which only the leaf is.
    pub events: u64,
    pub leaves: u64,
    /// Events that are told by their entry alone, since the store has dropped their content.
    #[serde(skip_serializing_if = "is_zero")]
    pub dropped: u64,
    /// Heads that agree: those of the bundle, and those that were kept elsewhere.
    pub heads: u64,
    pub kept_heads: u64,
    /// The last position of a head that agrees.
    pub signed: u64,
    /// The key that signatures were checked with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// Whether it is the bundle's own word for it, and not a key that was given.
    pub own_key: bool,
    /// The first position that isn't as it was, as far as one can be named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_bad: Option<u64>,
    pub findings: Vec<Finding>,
    /// How many there are, also beyond those that are listed.
    pub finding_count: u64,
}

const fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Verified {
    fn find(&mut self, line: u64, position: Option<u64>, problem: impl Into<String>) {
        self.finding_count += 1;
        if let Some(position) = position {
            let before = self.first_bad.unwrap_or(u64::MAX);
            self.first_bad = Some(position.min(before));
        }
        if self.findings.len() < LISTED {
            self.findings.push(Finding { line, position, problem: problem.into() });
        }
    }
}

/// A check under way.
#[derive(Debug, Clone)]
pub struct Verifier {
    key: Option<AuditPublicKey>,
    /// Heads that were kept elsewhere, by position.
    kept: BTreeMap<u64, Vec<SignedHead>>,
    line: u64,
    sha: Sha256,
    chain: Option<Chain>,
    manifest: Option<Manifest>,
    is_start_proven: bool,
    /// History parted from what was signed: all later heads do.
    has_parted: bool,
    has_ended: bool,
    report: Verified,
}

impl Verifier {
    /// Begins one. Signatures are checked with the key, or else with the one that the bundle names;
    /// heads that were kept elsewhere have to be of the same key.
    pub fn new(key: Option<AuditPublicKey>, kept: impl IntoIterator<Item = SignedHead>) -> Self {
        let mut by_position: BTreeMap<u64, Vec<SignedHead>> = BTreeMap::new();
        for head in kept {
            by_position.entry(head.position).or_default().push(head);
        }
        Self {
            report: Verified { own_key: key.is_none(), ..Verified::default() },
            key,
            kept: by_position,
            line: 0,
            sha: Sha256::new(),
            chain: None,
            manifest: None,
            is_start_proven: false,
            has_parted: false,
            has_ended: false,
        }
    }

    /// Takes the next line, without the newline at its end.
    pub fn line(&mut self, bytes: &[u8]) {
        self.line += 1;
        if self.has_ended {
            return self.find(None, "there is something after the end");
        }
        if bytes.len() > LINE_BYTES {
            return self.find(self.due(), "the line is too long to be one of a bundle");
        }
        let line = match serde_json::from_slice::<Line<'_>>(bytes) {
            Ok(line) => line,
            Err(error) => {
                self.find(self.due(), format!("the line can't be read: {error}"));
                return self.count(bytes);
            }
        };
        match (line, self.manifest.is_some()) {
            (Line::Manifest(manifest), false) => self.begin(manifest),
            (Line::Manifest(_), true) => self.find(self.due(), "there is a second manifest"),
            (_, false) => self.find(None, "a bundle begins with its manifest"),
            (Line::Event(event), true) => self.event(&event),
            (Line::Leaf(leaf), true) => self.leaf(&leaf),
            (Line::Head(head), true) => self.head(&head),
            (Line::End(end), true) => self.end(&end),
        }
        self.count(bytes);
    }

    /// There are no more lines.
    pub fn finish(mut self) -> Verified {
        self.line += 1;
        let last = self.chain.map_or(0, |chain| chain.position);
        match &self.manifest {
            None if self.line == 1 => self.find(None, "the bundle is empty"),
            None => {}
            Some(manifest) => {
                let to = manifest.to;
                if !self.has_ended {
                    let problem = format!("it is cut off: it was to go up to position {to}");
                    self.find(Some(last + 1), problem);
                } else if last < to {
                    let problem = format!("the events up to position {to} are missing");
                    self.find(Some(last + 1), problem);
                }
                if self.has_ended && self.report.signed < last && !self.has_parted {
                    let problem = "no signed head covers what is from here on";
                    self.find(Some(self.report.signed + 1), problem);
                }
            }
        }
        self.report.last = last;
        self.report.ok = self.report.finding_count == 0;
        self.report
    }

    fn find(&mut self, position: Option<u64>, problem: impl Into<String>) {
        self.report.find(self.line, position, problem);
    }

    /// The position that is due.
    fn due(&self) -> Option<u64> {
        self.chain.map(|chain| chain.position + 1)
    }

    fn count(&mut self, bytes: &[u8]) {
        self.sha.update(bytes);
        self.sha.update(b"\n");
    }

    fn begin(&mut self, manifest: Manifest) {
        if manifest.format != BUNDLE_FORMAT {
            self.find(None, format!("the format isn't {BUNDLE_FORMAT}"));
        }
        match AuditPublicKey::from_pem(&manifest.public_key) {
            Ok(own) => match &self.key {
                None => self.key = Some(own),
                Some(given) if *given != own => {
                    self.find(None, "the bundle names another public key than the one given");
                }
                Some(_) => {}
            },
            Err(error) => self.find(None, error.to_string()),
        }
        self.report.key_id = self.key.as_ref().map(AuditPublicKey::id);
        let Place { position, hash } = &manifest.start;
        let start = hash.parse::<Hash>().map(|hash| Chain { position: *position, hash });
        let chain = start.unwrap_or_else(|error| {
            self.find(Some(position + 1), format!("the start has no hash: {error}"));
            Chain { position: *position, hash: Hash([0; 32]) }
        });
        if *position == 0 {
            let epoch = u32::from_str_radix(&manifest.epoch, 16);
            let is_first = epoch.is_ok_and(|epoch| Chain::start(epoch) == chain);
            self.is_start_proven = is_first;
            if !is_first {
                self.find(Some(1), "the chain doesn't begin as that of this store does");
            }
        }
        if manifest.from > manifest.to || manifest.start.position >= manifest.from.max(1) {
            self.find(None, "the manifest's positions don't fit each other");
        }
        self.report.first = position + 1;
        self.report.signed = *position;
        self.report.epoch = Some(manifest.epoch.clone());
        self.report.workspace_id.clone_from(&manifest.workspace_id);
        // Those before it say nothing about it.
        self.kept = self.kept.split_off(position);
        self.chain = Some(chain);
        self.manifest = Some(manifest);
        self.hold_against_kept();
    }

    fn event(&mut self, line: &EventLine<'_>) {
        let due = self.due();
        let entry = match serde_json::from_str::<EntryText>(line.entry.get()) {
            Ok(entry) => entry,
            Err(error) => return self.find(due, format!("the entry can't be read: {error}")),
        };
        let place = Some(entry.position);
        if entry.written().as_deref() != Some(line.entry.get().as_bytes()) {
            self.find(place, "the entry isn't written as entries are");
        }
        let fits = |hash: Option<Hash>, said: &str| hash.is_some_and(|it| it.to_string() == said);
        if !fits(line.metadata.hash(), &entry.metadata_sha256) {
            self.find(place, "the metadata isn't what the entry says");
        }
        match &line.payload {
            Some(payload) if !fits(payload.hash(), &entry.payload_sha256) => {
                self.find(place, "the payload isn't what the entry says");
            }
            None if line.dropped => self.report.dropped += 1,
            None if entry.aggregate_type != Kind::ApiKey.as_str() => {
                self.find(place, "the payload is missing");
            }
            Some(_) | None => {}
        }
        let only = self.manifest.as_ref().and_then(|manifest| manifest.workspace_id.as_ref());
        if only.is_some_and(|only| *only != entry.workspace_id) {
            self.find(place, "the event is of another workspace than the bundle");
        }
        let leaf = Hash::of(line.entry.get());
        if line.mark.as_ref().is_some_and(|mark| *mark != leaf.mark()) {
            self.find(place, "it isn't the event that was sealed here");
        }
        self.report.events += 1;
        self.follow(entry.position, &leaf);
    }

    fn leaf(&mut self, line: &LeafLine) {
        let Ok(leaf) = line.leaf.parse::<Hash>() else {
            return self.find(Some(line.position), "the leaf isn't a SHA-256");
        };
        if self.manifest.as_ref().is_some_and(|manifest| manifest.workspace_id.is_none()) {
            self.find(Some(line.position), "of a bundle of all workspaces no event is left out");
        }
        self.report.leaves += 1;
        self.follow(line.position, &leaf);
    }

    fn follow(&mut self, position: u64, leaf: &Hash) {
        let Some(mut chain) = self.chain else { return };
        let due = chain.position + 1;
        if !self.is_start_proven && chain.position + 1 == self.report.first {
            // Asked once: the heads about the start come before the first event.
            self.is_start_proven = true;
            self.find(Some(due), "no signed head says that history before it was this one");
        }
        if position != due {
            self.find(Some(due.min(position)), format!("position {due} was due, {position} came"));
        }
        chain.follow(leaf);
        // From where it is now, whatever came before.
        chain.position = position.max(due);
        self.chain = Some(chain);
        self.hold_against_kept();
    }

    fn head(&mut self, head: &SignedHead) {
        let at = self.chain.map_or(0, |chain| chain.position);
        if head.position != at {
            let problem =
                format!("a head of position {} stands after position {at}", head.position);
            return self.find(Some(at.min(head.position) + 1), problem);
        }
        if self.agrees(head) {
            self.report.heads += 1;
        }
    }

    fn hold_against_kept(&mut self) {
        let Some(chain) = self.chain else { return };
        for head in self.kept.remove(&chain.position).unwrap_or_default() {
            if self.agrees(&head) {
                self.report.kept_heads += 1;
            }
        }
    }

    /// Whether a head that is about where the chain is now says the same.
    fn agrees(&mut self, head: &SignedHead) -> bool {
        let (Some(chain), Some(manifest)) = (self.chain, &self.manifest) else { return false };
        if head.epoch != manifest.epoch {
            let problem = format!("a head of store {} isn't of this one", head.epoch);
            self.find(None, problem);
            return false;
        }
        if !self.key.as_ref().is_some_and(|key| key.has_signed(head)) {
            let problem = format!("the key did not sign the head of {}", head.signed_at);
            self.find(None, problem);
            return false;
        }
        if head.hash != chain.hash.to_string() {
            if !self.has_parted {
                self.has_parted = true;
                let (signed, at) = (self.report.signed, &head.signed_at);
                let problem = format!(
                    "history from here up to position {} isn't what was signed at {at}",
                    chain.position
                );
                self.find(Some(signed + 1), problem);
            }
            return false;
        }
        self.report.signed = chain.position;
        if chain.position + 1 == self.report.first {
            self.is_start_proven = true;
        }
        true
    }

    fn end(&mut self, end: &End) {
        self.has_ended = true;
        let so_far = Hash(self.sha.clone().finalize().into()).to_string();
        let place = self.chain.map_or(0, |chain| chain.position);
        let told = (end.signed.events, end.signed.leaves, end.signed.position);
        if (self.report.events, self.report.leaves, place) != told {
            self.find(None, "the bundle has another number of events than its end says");
        }
        let hash = self.chain.map(|chain| chain.hash.to_string());
        if hash.as_ref() != Some(&end.signed.hash) {
            self.find(None, "the chain at the end isn't what the end says");
        }
        if so_far != end.signed.sha256 {
            self.find(None, "the bundle's bytes aren't those that were exported");
        }
        if !self.key.as_ref().is_some_and(|key| end.is_signed_by(key)) {
            self.find(None, "the key did not sign the bundle");
        }
    }
}
