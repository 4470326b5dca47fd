//! A bundle in a file: checked once from its first line to its last, and read again in places.
//!
//! What is kept in memory is where each event and each value stands, never what it says. One that
//! is compressed is checked while it is decompressed, into a file that nobody else sees and that
//! goes with it.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use chassis::journal::{Payload, ReadError, RecordedEvent};
use domain::bundle::{Damaged, Fault, Line, Manifest, RUN, Reader, StoredEvent};
use domain::codec;
use domain::ids::RunId;
use domain::limits::{BUNDLE_INFLATED_BYTES, BUNDLE_INFLATED_TIMES, BUNDLE_LINE_BYTES};
use domain::{resource, run};
use flate2::bufread::MultiGzDecoder;

use crate::histories::Past;

/// What gzip begins with.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Why a file can't be opened as a bundle.
#[derive(Debug, thiserror::Error)]
pub enum OpenBundleError {
    #[error(transparent)]
    Read(#[from] io::Error),
    #[error(transparent)]
    Damaged(#[from] Damaged),
}

/// A bundle that was found whole. Its histories are read with [`crate::Histories`].
#[derive(Debug)]
pub struct Bundle {
    lines: Lines,
    manifest: Manifest,
    /// The runs, in the order in which they stand there.
    runs: Vec<RunId>,
    /// Sequences and places of events, by the type and the id of their aggregate.
    events: BTreeMap<(String, String), Vec<(u64, u64)>>,
    values: HashMap<String, u64>,
}

impl Bundle {
    /// Opens a file, and reads all of it once.
    ///
    /// # Errors
    /// Where the file can't be read, and where it isn't a whole bundle that this release reads.
    pub fn open(path: &Path) -> Result<Self, OpenBundleError> {
        Self::open_within(path, BUNDLE_INFLATED_BYTES)
    }

    /// The same, of one that may come to so many bytes and some times its own, where it is
    /// compressed.
    pub(crate) fn open_within(path: &Path, bytes: u64) -> Result<Self, OpenBundleError> {
        let (mut source, lines) = Source::open(path, bytes)?;
        let (mut reader, mut text, mut at) = (Reader::default(), Vec::new(), 0);
        let mut runs = Vec::new();
        let mut events: BTreeMap<_, Vec<(u64, u64)>> = BTreeMap::new();
        let mut values = HashMap::new();
        loop {
            let place = at;
            at += source.next_line(&mut text, reader.line() + 1)?;
            if at == place {
                break;
            }
            // A last line without a line feed is as whole as its end says.
            let line = reader.take(text.strip_suffix(b"\n").unwrap_or(&text))?;
            match line {
                Line::Event(event) => {
                    let decoded = decodes(&event, &|hash| {
                        values.get(hash).and_then(|place| lines.value_at(*place).ok())
                    });
                    decoded.map_err(|fault| Damaged { line: reader.line(), fault })?;
                    if event.aggregate_type == RUN && event.sequence == 1 {
                        let id = event.aggregate_id.parse().map_err(|error| Damaged {
                            line: reader.line(),
                            fault: Fault::Event(format!("{error}")),
                        })?;
                        runs.push(id);
                    }
                    let key = (event.aggregate_type, event.aggregate_id);
                    events.entry(key).or_default().push((event.sequence, place));
                }
                Line::Payload(payload) => drop(values.insert(payload.hash, place)),
                Line::WonderBundle(_) | Line::End(_) => {}
            }
        }
        events.values_mut().for_each(|events| events.sort_unstable());
        Ok(Self { lines, manifest: reader.end()?, runs, events, values })
    }

    /// What it is of.
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// How many values stand apart from events.
    pub(super) fn values(&self) -> u64 {
        self.values.len() as u64
    }

    /// What runs refer to: `<kind>/<id>@<version>`.
    pub(super) fn referred(&self) -> Vec<String> {
        let others = self.events.iter().filter(|((kind, _), _)| kind != RUN);
        let each = others.flat_map(|((kind, id), events)| {
            events.iter().map(move |(version, _)| format!("{kind}/{id}@{version}"))
        });
        each.collect()
    }

    /// The run that was asked for and then its children and theirs.
    pub fn runs(&self) -> &[RunId] {
        &self.runs
    }
}

/// What a bundle is read from, from its first line to its last.
enum Source {
    Plain(BufReader<File>),
    /// Decompressed, and written down for who reads it in places.
    Compressed {
        text: Box<BufReader<MultiGzDecoder<BufReader<File>>>>,
        plain: File,
        room: u64,
        most: u64,
    },
}

impl Source {
    /// The source, and where lines are found again by their places.
    fn open(path: &Path, bytes: u64) -> io::Result<(Self, Lines)> {
        let mut file = BufReader::new(File::open(path)?);
        let again = |file| Lines(Mutex::new(BufReader::new(file)));
        if !file.fill_buf()?.starts_with(&GZIP) {
            return Ok((Self::Plain(file), again(File::open(path)?)));
        }
        let most = file.get_ref().metadata()?.len().saturating_mul(BUNDLE_INFLATED_TIMES);
        let most = most.saturating_add(bytes);
        let plain = tempfile::NamedTempFile::new()?;
        let lines = again(plain.reopen()?);
        let text = Box::new(BufReader::new(MultiGzDecoder::new(file)));
        // Without a name from here on: it goes with the last who has it open.
        let plain = plain.into_file();
        Ok((Self::Compressed { text, plain, room: most, most }, lines))
    }

    /// Reads the next line with its line feed. Answers its bytes, 0 at the end.
    fn next_line(&mut self, line: &mut Vec<u8>, number: u64) -> Result<u64, OpenBundleError> {
        match self {
            Self::Plain(file) => Ok(next_line(file, line)?),
            Self::Compressed { text, plain, room, most } => {
                let damaged = |fault| OpenBundleError::Damaged(Damaged { line: number, fault });
                let bytes = next_line(text, line).map_err(|error| {
                    damaged(match error.kind() {
                        io::ErrorKind::UnexpectedEof => Fault::CutOff,
                        _ => Fault::Compression(error.to_string()),
                    })
                })?;
                *room = room.checked_sub(bytes).ok_or_else(|| damaged(Fault::Inflates(*most)))?;
                plain.write_all(line)?;
                Ok(bytes)
            }
        }
    }
}

/// Whether an event can be read by this release.
fn decodes(event: &StoredEvent, values: &dyn Fn(&str) -> Option<Vec<u8>>) -> Result<(), Fault> {
    let (name, version) = (&event.event_type, event.event_version);
    let payload = event.payload.get().as_bytes();
    match &*event.aggregate_type {
        RUN => codec::decode::<run::Event>(name, version, payload, values).map(drop),
        _ => codec::decode::<resource::Event>(name, version, payload, values).map(drop),
    }
    .map_err(|error| Fault::Event(error.to_string()))
}

/// Reads the next line with its line feed, at most a little more than a line may have. Answers its
/// bytes, 0 at the end of the file.
fn next_line(file: &mut impl BufRead, text: &mut Vec<u8>) -> io::Result<u64> {
    text.clear();
    let most = BUNDLE_LINE_BYTES as u64 + 2;
    file.take(most).read_until(b'\n', text).map(|bytes| bytes as u64)
}

/// The lines of a file, by their places.
#[derive(Debug)]
struct Lines(Mutex<BufReader<File>>);

impl Lines {
    /// Reads lines, in the order of their places.
    fn at(&self, places: impl Iterator<Item = u64>) -> io::Result<Vec<Line>> {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut text, mut lines) = (Vec::new(), Vec::new());
        for place in places {
            let distance = place.cast_signed() - file.stream_position()?.cast_signed();
            match distance {
                0 => {}
                _ if distance.abs() < 64 * 1024 => file.seek_relative(distance)?,
                _ => drop(file.seek(SeekFrom::Start(place))?),
            }
            next_line(&mut *file, &mut text)?;
            lines.push(serde_json::from_slice(&text)?);
        }
        Ok(lines)
    }

    fn value_at(&self, place: u64) -> io::Result<Vec<u8>> {
        match self.at(std::iter::once(place))?.pop() {
            Some(Line::Payload(payload)) => {
                Ok(Box::<str>::from(payload.value).into_boxed_bytes().into())
            }
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

#[async_trait]
impl Past for Bundle {
    async fn load(
        &self,
        aggregate_type: &str,
        aggregate_id: &str,
        after_sequence: u64,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        let key = (aggregate_type.to_owned(), aggregate_id.to_owned());
        let Some(events) = self.events.get(&key) else { return Ok(Vec::new()) };
        let first = events.partition_point(|(sequence, _)| *sequence <= after_sequence);
        let places = events.iter().skip(first).take(limit).map(|(_, place)| *place);
        let lines = self.lines.at(places).map_err(changed)?;
        let workspace_id: Arc<str> = self.manifest.workspace_id.to_string().into();
        let recorded = |line: Line| match line {
            Line::Event(event) => Ok(recorded(*event, &workspace_id)),
            _ => Err(changed(io::ErrorKind::InvalidData.into())),
        };
        lines.into_iter().map(recorded).collect()
    }

    async fn payloads(&self, hashes: &[Arc<str>]) -> Result<Vec<Payload>, ReadError> {
        let payload = |hash: &Arc<str>| {
            let missing = || ReadError::Damaged(format!("the value {hash} is missing").into());
            let place = self.values.get(&**hash).ok_or_else(missing)?;
            let bytes = self.lines.value_at(*place).map_err(changed)?.into();
            Ok(Payload { hash: Arc::clone(hash), bytes })
        };
        hashes.iter().map(payload).collect()
    }
}

/// The file was whole when it was opened.
fn changed(error: io::Error) -> ReadError {
    ReadError::Damaged(format!("the file has changed since it was opened: {error}").into())
}

fn recorded(event: StoredEvent, workspace_id: &Arc<str>) -> RecordedEvent {
    let bytes = |raw: Box<serde_json::value::RawValue>| {
        Bytes::from(Box::<str>::from(raw).into_boxed_bytes())
    };
    RecordedEvent {
        position: event.position,
        id: event.id,
        aggregate_type: event.aggregate_type.into(),
        aggregate_id: event.aggregate_id.into(),
        sequence: event.sequence,
        event_type: event.event_type.into(),
        event_version: event.event_version,
        workspace_id: Arc::clone(workspace_id),
        payload: bytes(event.payload),
        metadata: event.metadata.map(bytes).unwrap_or_default(),
        recorded_at: event.recorded_at,
        redacted: None,
    }
}
