//! A file that is at its place only when it is whole: written beside it, and moved there.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::exit::Failure;

/// A file on its way. Dropped before [`PartFile::keep`], what there is of it is removed.
pub(crate) struct PartFile {
    file: BufWriter<File>,
    part: PathBuf,
    path: PathBuf,
    is_kept: bool,
}

impl PartFile {
    /// Begins a file, as `<path>.part`. One that is there is replaced.
    ///
    /// # Errors
    /// Where it can't be written.
    pub(crate) fn create(path: &Path) -> Result<Self, Failure> {
        let mut part = path.to_owned().into_os_string();
        part.push(".part");
        let part = PathBuf::from(part);
        let file = File::create(&part).map_err(|error| unwritable(&part, &error))?;
        Ok(Self { file: BufWriter::new(file), part, path: path.to_owned(), is_kept: false })
    }

    /// Returns when all that was written is on the disk; where it is read from, meanwhile.
    ///
    /// # Errors
    /// Where it can't be written.
    pub(crate) fn whole(&mut self) -> Result<&Path, Failure> {
        let done = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        done.map_err(|error| unwritable(&self.part, &error))?;
        Ok(&self.part)
    }

    /// Moves it to its place.
    ///
    /// # Errors
    /// Where it can't be written or moved.
    pub(crate) fn keep(mut self) -> Result<(), Failure> {
        self.whole()?;
        std::fs::rename(&self.part, &self.path).map_err(|error| unwritable(&self.path, &error))?;
        self.is_kept = true;
        Ok(())
    }
}

impl Write for PartFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        if !self.is_kept
            && let Err(error) = std::fs::remove_file(&self.part)
        {
            tracing::debug!(part = %self.part.display(), %error, "a part of a file is left");
        }
    }
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Refused(format!("{} can't be written: {error}", path.display()))
}
