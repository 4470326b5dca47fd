//! Bundles on their way into a file: compressed, and looked through for secrets.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::sync::Arc;

use ::projections::{Bundle, Histories, OpenBundleError, bundle_manifest};
use chassis::journal::Journal;
use chrono::Utc;
use domain::bundle::{Finding, Line, Screen, Seal};
use domain::ids::RunId;
use flate2::Compression;
use flate2::write::GzEncoder;
use protocol::bundle::BundleCursor;
use protocol::{Cursor, Rejection};
use sha2::{Digest, Sha256};

use crate::exit::Failure;
use crate::part_file::PartFile;

/// Bytes of a file that are read at once.
const PIECE: usize = 64 * 1024;

/// What becomes of secrets that stand in a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Secrets {
    /// Nobody looks.
    Unseen,
    /// They are found, and stay.
    Found,
    /// They are masked.
    Masked,
}

/// What was found, the first of it, and how much there is.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) first: Vec<Finding>,
    pub(crate) count: u64,
}

/// A bundle's lines, before they are packed: a file that goes when this is dropped.
pub(crate) fn plain(path: &Path) -> Result<PartFile, Failure> {
    let mut beside = path.to_owned().into_os_string();
    beside.push(".plain");
    PartFile::create(Path::new(&beside))
}

/// Writes the lines of a run of a journal.
///
/// # Errors
/// Where the run can't be read, and where the file can't be written.
pub(crate) async fn lines(
    journal: &Arc<dyn Journal>,
    run_id: RunId,
    file: &mut impl Write,
) -> Result<(), Failure> {
    let refused =
        |refused: Rejection| Failure::Refused(format!("{} ({})", refused.message, refused.code));
    let histories = Histories::of(journal);
    let workspace_id = histories.workspace_of(run_id).await.map_err(refused)?;
    let position = journal.head().await.map_err(anyhow::Error::from)?;
    let up_to = Cursor { epoch: journal.epoch(), position };
    let manifest = bundle_manifest(workspace_id, run_id, up_to, Utc::now());
    let mut next = Some(Box::new(BundleCursor::new(manifest)));
    let mut seal = Seal::default();
    while let Some(cursor) = next {
        let part = histories.bundle(*cursor).await.map_err(refused)?;
        for line in part.lines {
            seal.take(line.get().as_bytes());
            writeln!(file, "{}", line.get())?;
        }
        next = part.next;
    }
    writeln!(file, "{}", Line::End(seal.end()).to_raw()?.get())?;
    Ok(())
}

/// SHA-256 of a file's bytes, 64 hexadecimal digits.
///
/// # Errors
/// Where it can't be read.
pub(crate) fn sha256(path: &Path) -> io::Result<String> {
    let (mut file, mut sha) = (File::open(path)?, Sha256::new());
    let mut piece = vec![0; PIECE];
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 {
            return Ok(data_encoding::HEXLOWER.encode(&sha.finalize()));
        }
        sha.update(&piece[..read]);
    }
}

/// Packs a whole bundle, whose lines stand in a file. What was made is on the disk, was read as any
/// reader does, and isn't at its place yet.
///
/// # Errors
/// Where the lines aren't a whole bundle, and where files can't be read or written.
pub(crate) fn pack(
    plain: &Path,
    path: &Path,
    secrets: Secrets,
    compresses: bool,
) -> Result<(PartFile, Findings), Failure> {
    let bundle = opened(plain)?;
    let mut file = PartFile::create(path)?;
    let mut findings = Findings::default();
    let mut through = |out: &mut dyn Write| -> Result<(), Failure> {
        let mut lines = BufReader::new(File::open(plain)?);
        if secrets == Secrets::Unseen {
            io::copy(&mut lines, out)?;
            return Ok(());
        }
        let masks = secrets == Secrets::Masked;
        let mut screen = Screen::new(bundle.manifest().workspace_id, masks);
        screened(lines, &mut screen, masks, out)?;
        (findings.first, findings.count) = screen.finish();
        Ok(())
    };
    if compresses {
        let mut gzip = GzEncoder::new(&mut file, Compression::default());
        through(&mut gzip)?;
        gzip.finish()?;
    } else {
        through(&mut file)?;
    }
    let packed = opened(file.whole()?)?;
    if packed.runs() != bundle.runs() {
        return Err(Failure::Refused(format!("{} has other runs than it should", path.display())));
    }
    Ok((file, findings))
}

/// Lets lines through a screen.
fn screened(
    lines: impl BufRead,
    screen: &mut Screen,
    masks: bool,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let mut seal = Seal::default();
    for text in lines.lines() {
        let text = text?;
        let line = serde_json::from_str(&text)?;
        let text = match line {
            Line::End(_) => Line::End(seal.clone().end()).to_raw()?.get().to_owned(),
            line => {
                let line = screen.take(line)?;
                if masks { line.to_raw()?.get().to_owned() } else { text }
            }
        };
        seal.take(text.as_bytes());
        writeln!(out, "{text}")?;
    }
    Ok(())
}

/// Opens a bundle. One that isn't whole is refused with the line.
pub(crate) fn opened(file: &Path) -> Result<Bundle, Failure> {
    let told = |error: OpenBundleError| Failure::Refused(format!("{}: {error}", file.display()));
    Bundle::open(file).map_err(told)
}
