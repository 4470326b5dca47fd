//! What the server used between two moments: CPU, log and commits.

use crate::exit::Failure;

use super::process;
use super::target::Target;

/// The counters at a moment; absent where they can't be seen.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Moment {
    server_cpu_us: Option<u64>,
    client_cpu_us: Option<u64>,
    journal_bytes: Option<u64>,
    commits: Option<u64>,
}

/// What was used up between two moments.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Used {
    pub(super) server_cpu_us: Option<u64>,
    pub(super) client_cpu_us: Option<u64>,
    pub(super) journal_bytes: Option<u64>,
    pub(super) commits: Option<u64>,
}

impl Moment {
    pub(super) async fn now(target: &Target) -> Result<Self, Failure> {
        let (_, metrics) = target.client.get_plain("/metrics").await?;
        Ok(Self {
            server_cpu_us: target.pid().and_then(|pid| process::cpu_us(&pid)),
            client_cpu_us: process::cpu_us("self"),
            journal_bytes: target.folder().and_then(|folder| process::journal_bytes(&folder)),
            commits: counter(&metrics, "wonder_journal_commits_total"),
        })
    }

    pub(super) fn until(self, later: Self) -> Used {
        let between = |from: Option<u64>, to: Option<u64>| Some(to?.saturating_sub(from?));
        Used {
            server_cpu_us: between(self.server_cpu_us, later.server_cpu_us),
            client_cpu_us: between(self.client_cpu_us, later.client_cpu_us),
            journal_bytes: between(self.journal_bytes, later.journal_bytes),
            commits: between(self.commits, later.commits),
        }
    }
}

/// The sum of a counter over its labels, in Prometheus' text format.
fn counter(metrics: &str, name: &str) -> Option<u64> {
    let mut sum = None;
    for line in metrics.lines() {
        let Some(rest) = line.strip_prefix(name) else {
            continue;
        };
        if !rest.starts_with([' ', '{']) {
            continue;
        }
        let value = rest.rsplit(' ').next()?.parse::<f64>().ok()?;
        sum = Some(sum.unwrap_or(0) + value as u64);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_summed_over_its_labels() {
        let text = "# TYPE x counter\nx{a=\"1 2\"} 3\nx{a=\"b\"} 4\nx_more 9\ny 1\n";
        assert_eq!(counter(text, "x"), Some(7));
        assert_eq!(counter(text, "y"), Some(1));
        assert_eq!(counter(text, "z"), None);
    }
}
