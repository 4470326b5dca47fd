//! Folders and files that only their owner can read: a journal holds inputs, prompts and answers.

use std::fs::{DirBuilder, File};
use std::io;
use std::path::Path;

/// Makes a folder (and those above it) where it is missing; new ones are the owner's alone.
pub fn folder(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Makes an empty file where it is missing; a new one is the owner's alone, and so are the files
/// that SQLite makes beside it.
pub fn file(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.create(true).write(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_made_is_the_owners_and_what_is_there_stays() {
        let root = tempfile::tempdir().expect("a folder");
        let data = root.path().join("a/b");
        folder(&data).expect("made");
        folder(&data).expect("there already");
        let path = data.join("journal.db");
        drop(file(&path).expect("made"));
        std::fs::write(&path, "kept").expect("written");
        drop(file(&path).expect("there already"));
        assert_eq!(std::fs::read(&path).expect("read"), b"kept");
        let mode = |path: &Path| path.metadata().expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&data), mode(&path)), (0o700, 0o600));
    }
}
