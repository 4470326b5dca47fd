//! The archive of the log store: a file of NDJSON a day, to which records are appended before they
//! are removed.
//!
//! A record stands there once. What a crash left of a line is cut off, and where it isn't certain
//! that the last records were removed, those that the file ends with aren't appended again.

use std::collections::{BTreeMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use chrono::NaiveDate;
use protocol::LogRecord;
use serde::Deserialize;

use super::trim::PORTION;

/// Bytes of a line, at most: what a record may hold, escaped.
const LINE_BYTES: u64 = 256 * 1024;
/// Bytes of the end of a file that are looked at for what stands there already.
const TAIL_BYTES: u64 = PORTION as u64 * 16 * 1024;

/// A folder of files.
pub(crate) struct Archive {
    folder: PathBuf,
    /// Whether the records that were appended last are gone from the store.
    settled: bool,
}

impl Archive {
    /// The archive in a folder, which is made where it is missing.
    pub(crate) const fn new(folder: PathBuf) -> Self {
        Self { folder, settled: false }
    }

    /// Appends records in their order, at most a portion. They are on the disk when it returns.
    pub(crate) fn append(&mut self, records: &[LogRecord]) -> io::Result<()> {
        chassis::private::folder(&self.folder)?;
        let mut days = BTreeMap::<NaiveDate, Vec<&LogRecord>>::new();
        for record in records {
            days.entry(record.at.date_naive()).or_default().push(record);
        }
        for (day, records) in days {
            self.append_to(&self.folder.join(format!("logs-{day}.ndjson")), &records)?;
        }
        self.settled = false;
        Ok(())
    }

    /// What was appended is gone from the store.
    pub(crate) const fn settle(&mut self) {
        self.settled = true;
    }

    fn append_to(&self, path: &Path, records: &[&LogRecord]) -> io::Result<()> {
        drop(chassis::private::file(path)?);
        let mut file = OpenOptions::new().read(true).append(true).open(path)?;
        let known = match self.settled {
            true => HashSet::new(),
            false => mended(&mut file)?,
        };
        let mut lines = Vec::new();
        for record in records.iter().filter(|record| !known.contains(&record.id)) {
            serde_json::to_writer(&mut lines, record)?;
            lines.push(b'\n');
        }
        file.write_all(&lines)?;
        file.sync_all()?;
        File::open(&self.folder)?.sync_all()
    }
}

/// Cuts off a line without an end; answers the ids of the records that the file ends with.
fn mended(file: &mut File) -> io::Result<HashSet<String>> {
    #[derive(Deserialize)]
    struct Line {
        id: String,
    }
    let length = file.seek(SeekFrom::End(0))?;
    let from = length.saturating_sub(TAIL_BYTES + LINE_BYTES);
    file.seek(SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    (&*file).take(TAIL_BYTES + LINE_BYTES).read_to_end(&mut tail)?;
    let whole = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    if whole < tail.len() {
        file.set_len(from + whole as u64)?;
    }
    let lines = tail[..whole].split(|byte| *byte == b'\n');
    Ok(lines.filter_map(|line| serde_json::from_slice::<Line>(line).ok()).map(|l| l.id).collect())
}
