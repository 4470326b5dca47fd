//! One JSON line for a workload.

use serde::Serialize;

use super::Size;
use super::load::Taken;
use super::measure::Used;

/// What a workload gave. Rates and times are medians over the repetitions.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    workload: &'static str,
    engine: &'static str,
    /// An fsync stands before every answer.
    durability: &'static str,
    n: u64,
    clients: u32,
    pub(super) runs_per_s: Option<f64>,
    pub(super) tasks_per_s: Option<f64>,
    pub(super) p50_ms: Option<f64>,
    pub(super) p99_ms: Option<f64>,
    cpu_us_per_task: Option<f64>,
    client_cpu_us_per_task: Option<f64>,
    bytes_per_task: Option<f64>,
    commits: Option<u64>,
    pub(super) rss_mib: Option<f64>,
    /// The workload's leading number in each repetition.
    pub(super) repetitions: Vec<f64>,
    /// (largest − smallest) / median of them.
    spread: f64,
    /// Step times of `history`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) steps: Option<Steps>,
    /// What `beside` gave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) beside: Option<Beside>,
    /// How it was measured, where that needs saying.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) method: Option<&'static str>,
}

/// Whether a step costs the same at the end of a history as at its start.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Steps {
    pub(super) all_ms: f64,
    pub(super) first_tenth_ms: f64,
    pub(super) last_tenth_ms: f64,
    pub(super) last_to_first: f64,
}

/// How long small runs take while nothing else goes on, and beside a very large one.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Beside {
    pub(super) alone_p50_ms: f64,
    pub(super) alone_p99_ms: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) p99_ratio: f64,
    /// Small runs that ended while the large one went on.
    pub(super) runs: f64,
    pub(super) large_s: f64,
}

impl Report {
    pub(super) fn new(workload: &'static str, size: Size) -> Self {
        Self {
            workload,
            engine: "wonder",
            durability: "fsync",
            n: size.n,
            clients: size.clients,
            runs_per_s: None,
            tasks_per_s: None,
            p50_ms: None,
            p99_ms: None,
            cpu_us_per_task: None,
            client_cpu_us_per_task: None,
            bytes_per_task: None,
            commits: None,
            rss_mib: None,
            repetitions: Vec::new(),
            spread: 0.0,
            steps: None,
            beside: None,
            method: None,
        }
    }

    /// Takes over what was used for so many tasks.
    pub(super) fn used(&mut self, used: Used, tasks: u64) {
        let each = |sum: Option<u64>| sum.map(|sum| round(sum as f64 / tasks.max(1) as f64));
        self.cpu_us_per_task = each(used.server_cpu_us);
        self.client_cpu_us_per_task = each(used.client_cpu_us);
        self.bytes_per_task = each(used.journal_bytes);
        self.commits = used.commits;
    }

    /// Takes over runs/s, tasks/s and latencies of repetitions.
    pub(super) fn taken(&mut self, taken: &[Taken], tasks_per_run: u64) {
        let runs = |taken: &Taken| taken.each.len() as f64 / taken.whole.as_secs_f64();
        let ms = |percent| {
            let times = taken.iter().map(|t| t.percentile(percent).as_secs_f64() * 1e3);
            median(times.collect())
        };
        let runs_per_s: Vec<f64> = taken.iter().map(runs).collect();
        self.runs_per_s = Some(round(median(runs_per_s.clone())));
        self.tasks_per_s = Some(round(median(runs_per_s.clone()) * tasks_per_run as f64));
        (self.p50_ms, self.p99_ms) = (Some(round(ms(50))), Some(round(ms(99))));
        self.repeated(runs_per_s);
    }

    /// Takes over the leading number of each repetition.
    pub(super) fn repeated(&mut self, numbers: Vec<f64>) {
        let least = numbers.iter().copied().fold(f64::INFINITY, f64::min);
        let most = numbers.iter().copied().fold(0.0, f64::max);
        let middle = median(numbers.clone());
        self.spread = if middle > 0.0 { round((most - least) / middle) } else { 0.0 };
        self.repetitions = numbers.into_iter().map(round).collect();
    }
}

/// The middle value; the mean of the middle two where they are even in number.
pub(super) fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_unstable_by(f64::total_cmp);
    match numbers.len() {
        0 => 0.0,
        length if length % 2 == 1 => numbers[length / 2],
        length => f64::midpoint(numbers[length / 2 - 1], numbers[length / 2]),
    }
}

/// Three digits after the point.
pub(super) fn round(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_report_holds_medians_and_their_spread() {
        let size = Size { n: 2, clients: 1, repetitions: 3, warm_up: 0 };
        let mut report = Report::new("sequence", size);
        let taken = |ms| Taken {
            whole: Duration::from_millis(ms),
            each: vec![Duration::from_millis(ms / 2); 2],
        };
        report.taken(&[taken(1_000), taken(500), taken(2_000)], 5);
        assert_eq!(report.runs_per_s, Some(2.0));
        assert_eq!(report.tasks_per_s, Some(10.0));
        assert_eq!(report.p50_ms, Some(500.0));
        assert_eq!(report.repetitions, [2.0, 4.0, 1.0]);
        assert!((report.spread - 1.5).abs() < 1e-9);
        let line = serde_json::to_string(&report).expect("it is JSON");
        assert!(!line.contains('\n') && line.contains("\"durability\":\"fsync\""), "{line}");
    }
}
