//! What a process used, read from `/proc`; nothing on systems without it.

use std::path::Path;

use crate::config::JOURNAL_FILE;
use crate::output::say;

/// Clock ticks a second in `/proc/<pid>/stat`: Linux fixes it at 100 for programs.
const TICKS_PER_SECOND: u64 = 100;
#[cfg(target_os = "linux")]
const TMPFS: rustix::fs::FsWord = 0x0102_1994;

/// User and system time of a process so far, in µs; in steps of 10 ms.
pub(super) fn cpu_us(pid: &str) -> Option<u64> {
    parse_cpu_us(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_cpu_us(stat: &str) -> Option<u64> {
    // The name in parentheses may hold spaces; fields are counted after its end.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) * (1_000_000 / TICKS_PER_SECOND))
}

/// Resident memory of a process in MiB.
pub(super) fn rss_mib(pid: &str) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some((kib / 102.4).round() / 10.0)
}

/// Bytes of the journal and its write-ahead log in a data folder.
pub(super) fn journal_bytes(folder: &Path) -> Option<u64> {
    let size = |name: &str| std::fs::metadata(folder.join(name)).map(|file| file.len());
    Some(size(JOURNAL_FILE).ok()? + size(&format!("{JOURNAL_FILE}-wal")).unwrap_or(0))
}

/// An fsync on a disk of memory costs nothing and says nothing.
pub(super) fn warn_of_memory_disk(folder: &Path) {
    #[cfg(target_os = "linux")]
    if rustix::fs::statfs(folder).is_ok_and(|disk| disk.f_type == TMPFS) {
        say!("{} is in memory, so fsync is free there: choose a disk with --dir", folder.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_any_name() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 1 0 1 1 1";
        assert_eq!(parse_cpu_us(stat), Some(2_000_000));
        assert_eq!(parse_cpu_us("nonsense"), None);
    }
}
