//! The form of a run bundle: a run with all that its history needs, as one file that stands alone.
//!
//! A bundle is JSON, one object a line (NDJSON, UTF-8, lines end with a line feed). Each object has
//! one member, whose name says what it is:
//!
//! - `wonder_bundle` is the first line: a [`Manifest`].
//! - `event` is an event of the journal ([`StoredEvent`]): of a run, or the revision of a
//!   definition or of another thing that runs refer to. Events of a run come in order, without a
//!   gap.
//! - `payload` is a value that stands apart from events ([`StoredPayload`]). It comes before each
//!   event that refers to it.
//! - `end` is the last line: an [`End`], with the SHA-256 of all bytes before it.
//!
//! What is stored is taken over byte by byte, so that events are decided again as they were. The
//! whole may be compressed (gzip); numbers of lines and the hash are of what was compressed.

use std::collections::{BTreeMap, HashSet};

use chrono::{DateTime, Utc};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::codec;
use crate::ids::{RunId, WorkspaceId};
use crate::limits::BUNDLE_LINE_BYTES;

mod screen;

pub use screen::{Finding, Screen, places};

#[cfg(test)]
mod tests;

/// The number of the form. It grows where older readers would misread what is written.
pub const FORMAT: u32 = 1;
/// The aggregate type of runs.
pub const RUN: &str = "run";

/// A line of a bundle.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    WonderBundle(Manifest),
    Payload(StoredPayload),
    Event(Box<StoredEvent>),
    End(End),
}

/// What a bundle is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    /// The run that was asked for; the others are its children, and theirs.
    pub run_id: RunId,
    pub workspace_id: WorkspaceId,
    /// The journal that it was made of, and the position up to which it was read.
    pub epoch: String,
    pub position: u64,
    pub exported_at: DateTime<Utc>,
    /// The release that made it.
    pub engine_version: String,
    /// Secrets in it were masked, so not all of it is what was recorded.
    #[serde(default, rename = "masked", skip_serializing_if = "std::ops::Not::not")]
    pub is_masked: bool,
}

/// An event as the journal has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StoredEvent {
    pub position: u64,
    pub id: uuid::Uuid,
    pub aggregate_type: String,
    pub aggregate_id: String,
    pub sequence: u64,
    pub event_type: String,
    pub event_version: u32,
    pub recorded_at: DateTime<Utc>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Box<RawValue>>,
    /// Canonical JSON. An object with the one member `$ref` stands for the payload of that hash,
    /// one with `$enc` for a sealed value; a key of the user's that begins so has one more `$`.
    pub payload: Box<RawValue>,
}

/// A value that events refer to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StoredPayload {
    /// SHA-256 of the workspace's id, a zero byte, and the value's bytes.
    pub hash: String,
    pub value: Box<RawValue>,
}

/// The end of a whole bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// How many lines come before this one.
    pub lines: u64,
    /// SHA-256 of all of their bytes, line feeds included.
    pub sha256: String,
}

impl Line {
    /// The line, without a line feed.
    ///
    /// # Errors
    /// Where a value has no JSON form.
    pub fn to_raw(&self) -> Result<Box<RawValue>, serde_json::Error> {
        serde_json::value::to_raw_value(self)
    }
}

/// Stored JSON as it goes into a line: as it is, but for line feeds between its parts.
///
/// # Errors
/// Where it isn't JSON.
pub fn on_one_line(json: &[u8]) -> Result<Box<RawValue>, serde_json::Error> {
    if json.contains(&b'\n') {
        let value: serde_json::Value = serde_json::from_slice(json)?;
        return serde_json::value::to_raw_value(&value);
    }
    serde_json::from_slice(json)
}

/// Counts and hashes lines as they are written or read.
#[derive(Debug, Clone, Default)]
pub struct Seal {
    lines: u64,
    hash: Sha256,
}

impl Seal {
    /// Takes a line, without its line feed.
    pub fn take(&mut self, line: &[u8]) {
        self.lines += 1;
        self.hash.update(line);
        self.hash.update(b"\n");
    }

    /// The end of what was taken.
    pub fn end(self) -> End {
        End { lines: self.lines, sha256: HEXLOWER.encode(&self.hash.finalize()) }
    }
}

/// Why a file isn't a bundle that can be used, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {fault}")]
pub struct Damaged {
    pub line: u64,
    pub fault: Fault,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("this isn't a run bundle: its first line would begin with {{\"wonder_bundle\"")]
    Foreign,
    #[error("the bundle has format {0}, and this release reads {FORMAT}: use a newer release")]
    Newer(u32),
    #[error("it isn't a line of a bundle: {0}")]
    Unreadable(String),
    #[error("it has more than {} MiB", BUNDLE_LINE_BYTES >> 20)]
    TooLong,
    #[error("a second manifest stands here: the file is several bundles, or was put together")]
    SecondManifest,
    #[error("event {found} of {aggregate_id} stands where {expected} belongs: lines are missing")]
    Gap { aggregate_id: String, expected: u64, found: u64 },
    #[error("the value isn't the one that its hash {0} was made of")]
    OtherValue(String),
    #[error("the event refers to the value {0}, which doesn't come before it")]
    MissingValue(String),
    #[error("the event can't be read: {0}")]
    Event(String),
    #[error(
        "it is compressed, and grows beyond {0} bytes: that is no bundle of ours. Where you trust \
         it, decompress it first"
    )]
    Inflates(u64),
    #[error("its compression is damaged: {0}")]
    Compression(String),
    #[error("the file ends here, before the end of the bundle: it was cut off")]
    CutOff,
    #[error("the bundle has other lines than it was written with: its SHA-256 is another one")]
    OtherLines,
    #[error("something stands after the end of the bundle")]
    AfterEnd,
    #[error("the bundle has no event of its run")]
    NoRun,
}

/// Reads a bundle line by line, and checks it. It keeps no values, only what was there.
#[derive(Debug, Default)]
pub struct Reader {
    seal: Seal,
    manifest: Option<Manifest>,
    /// The last sequence of each aggregate.
    sequences: BTreeMap<(String, String), u64>,
    payloads: HashSet<String>,
    is_ended: bool,
}

impl Reader {
    /// Takes the next line, without its line feed.
    ///
    /// # Errors
    /// What is wrong with it. Nothing can be taken after that.
    pub fn take(&mut self, text: &[u8]) -> Result<Line, Damaged> {
        let line = self.seal.lines + 1;
        let checked = self.checked(text).map_err(|fault| Damaged { line, fault })?;
        self.seal.take(text);
        Ok(checked)
    }

    fn checked(&mut self, text: &[u8]) -> Result<Line, Fault> {
        if self.is_ended {
            return Err(Fault::AfterEnd);
        }
        if text.len() > BUNDLE_LINE_BYTES {
            return Err(Fault::TooLong);
        }
        if self.manifest.is_none() {
            check_format(text)?;
        }
        let line: Line =
            serde_json::from_slice(text).map_err(|error| Fault::Unreadable(within(&error)))?;
        match &line {
            Line::WonderBundle(_) if self.manifest.is_some() => return Err(Fault::SecondManifest),
            Line::WonderBundle(manifest) => self.manifest = Some(manifest.clone()),
            Line::Payload(payload) => {
                let workspace = self.manifest.as_ref().ok_or(Fault::Foreign)?.workspace_id;
                let value = payload.value.get().as_bytes();
                if codec::hash(value, workspace) != payload.hash {
                    return Err(Fault::OtherValue(payload.hash.clone()));
                }
                self.payloads.insert(payload.hash.clone());
            }
            Line::Event(event) => self.follow(event)?,
            Line::End(end) => {
                if *end != self.seal.clone().end() {
                    return Err(Fault::OtherLines);
                }
                self.is_ended = true;
            }
        }
        Ok(line)
    }

    /// Whether an event comes after the one before it, and what it refers to is there.
    fn follow(&mut self, event: &StoredEvent) -> Result<(), Fault> {
        let StoredEvent { aggregate_type, aggregate_id, sequence, payload, .. } = event;
        let last = (self.sequences).entry((aggregate_type.clone(), aggregate_id.clone()));
        let last = last.or_default();
        // Of other things there are only the revisions that runs refer to.
        let is_next = match &**aggregate_type {
            RUN => *sequence == *last + 1,
            _ => *sequence > 0,
        };
        if !is_next {
            let (expected, found) = (*last + 1, *sequence);
            return Err(Fault::Gap { aggregate_id: aggregate_id.clone(), expected, found });
        }
        *last = *sequence;
        let refs = codec::refs(payload.get().as_bytes());
        let missing = refs.into_iter().find(|hash| !self.payloads.contains(hash));
        missing.map_or(Ok(()), |hash| Err(Fault::MissingValue(hash)))
    }

    /// The number of the last line that was taken, from 1.
    pub const fn line(&self) -> u64 {
        self.seal.lines
    }

    /// The file ends here.
    ///
    /// # Errors
    /// Where the bundle hasn't ended before.
    pub fn end(self) -> Result<Manifest, Damaged> {
        let at = |fault| Damaged { line: self.seal.lines.max(1), fault };
        let Some(manifest) = self.manifest else { return Err(at(Fault::Foreign)) };
        if !self.is_ended {
            return Err(at(Fault::CutOff));
        }
        let run = (RUN.to_owned(), manifest.run_id.to_string());
        if !self.sequences.contains_key(&run) {
            return Err(at(Fault::NoRun));
        }
        Ok(manifest)
    }
}

/// What is wrong with the JSON of a line, whose number is told otherwise.
fn within(error: &serde_json::Error) -> String {
    error.to_string().replace(" at line 1 column ", " at column ")
}

/// Whether a first line is a manifest that this release reads.
fn check_format(text: &[u8]) -> Result<(), Fault> {
    #[derive(Deserialize)]
    struct First {
        wonder_bundle: Format,
    }
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let first: First = serde_json::from_slice(text).map_err(|_| Fault::Foreign)?;
    match first.wonder_bundle.format {
        FORMAT => Ok(()),
        0 => Err(Fault::Foreign),
        newer => Err(Fault::Newer(newer)),
    }
}
