//! A file that is at its place only when it is whole: written beside it, and moved there.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile};

use crate::exit::Failure;

/// A file on its way, which nobody else writes. Dropped before [`PartFile::keep`], what there is of
/// it is removed.
pub(crate) struct PartFile {
    file: BufWriter<NamedTempFile>,
    path: PathBuf,
}

impl PartFile {
    /// Begins a file, beside its place with another name.
    ///
    /// # Errors
    /// Where it can't be written.
    pub(crate) fn create(path: &Path) -> Result<Self, Failure> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let prefix = format!(".{name}.");
        let mut part = Builder::new();
        part.prefix(&prefix).suffix(".part");
        #[cfg(unix)]
        part.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let part = part.tempfile_in(folder(path)).map_err(|error| unwritable(path, &error))?;
        Ok(Self { file: BufWriter::new(part), path: path.to_owned() })
    }

    /// Returns when all that was written is on the disk; where it is read from, meanwhile.
    ///
    /// # Errors
    /// Where it can't be written.
    pub(crate) fn whole(&mut self) -> Result<&Path, Failure> {
        let done = self.file.flush().and_then(|()| self.file.get_ref().as_file().sync_all());
        done.map_err(|error| unwritable(&self.path, &error))?;
        Ok(self.file.get_ref().path())
    }

    /// Moves it to its place, where another one may be. It is there after a crash too.
    ///
    /// # Errors
    /// Where it can't be written or moved.
    pub(crate) fn keep(self) -> Result<(), Failure> {
        self.moved(|part, path| part.persist(path).map(drop).map_err(|error| error.error))
    }

    /// The same, where none is there; whether that was so.
    ///
    /// # Errors
    /// As above.
    pub(crate) fn keep_first(self) -> Result<bool, Failure> {
        let mut is_first = true;
        self.moved(|part, path| match part.persist_noclobber(path) {
            Ok(_) => Ok(()),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
                is_first = false;
                Ok(())
            }
            Err(error) => Err(error.error),
        })?;
        Ok(is_first)
    }

    fn moved(
        mut self,
        place: impl FnOnce(NamedTempFile, &Path) -> io::Result<()>,
    ) -> Result<(), Failure> {
        self.whole()?;
        let Self { file, path } = self;
        let part = file.into_inner().map_err(|error| unwritable(&path, error.error()))?;
        place(part, &path)
            .and_then(|()| File::open(folder(&path))?.sync_all())
            .map_err(|error| unwritable(&path, &error))
    }
}

impl Write for PartFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Where a file is.
fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::Refused(format!("{} can't be written: {error}", path.display()))
}
