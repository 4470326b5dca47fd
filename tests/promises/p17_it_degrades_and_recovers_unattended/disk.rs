//! A disk that is soon full: a small file system in memory.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// The capability to mount, as a bit of `CapEff` in `/proc/self/status`.
const SYS_ADMIN: u64 = 1 << 21;

/// A mounted file system. Dropping it unmounts it.
pub(super) struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    /// Mounts one of so many MiB. `None`, with a word about it, where this process may not mount:
    /// the test is left out there. Where it may, it has to work.
    pub(super) fn mount(mib: u64) -> Option<Self> {
        if !may_mount() {
            eprintln!("LEFT OUT: a full disk can't be made without the right to mount");
            return None;
        }
        let folder = tempfile::Builder::new().prefix("wonder-disk-").tempdir();
        let folder = folder.expect("a temporary folder can be made");
        let size = format!("size={mib}m,mode=755");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "none"])
            .arg(folder.path())
            .status();
        assert!(mounted.expect("mount can be started").success(), "a tmpfs can't be mounted");
        // The database runs as another user.
        let anybody = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.path(), anybody).expect("the folder is ours");
        Some(Self { folder })
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Takes all the room that is left.
    pub(super) fn fill(&self) {
        use std::io::Write;
        let mut ballast = std::fs::File::create(self.ballast()).expect("there is some room");
        for size in [1024 * 1024, 4096, 1] {
            let block = vec![0_u8; size];
            while ballast.write_all(&block).is_ok() {}
        }
    }

    /// Gives it back.
    pub(super) fn empty(&self) {
        std::fs::remove_file(self.ballast()).expect("the ballast is there");
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: what is still being ended may hold files in it.
        Command::new("umount").arg("--lazy").arg(self.path()).status().ok();
    }
}

fn may_mount() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let capabilities = capabilities.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    capabilities.is_some_and(|bits| bits & SYS_ADMIN != 0)
}
