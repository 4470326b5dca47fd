//! Progress on stderr: bars on a terminal, otherwise a line for a node now and then.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use super::{NodeCount, Progress};
use crate::output::{self, say};

/// Plain lines of one node are at least this far apart.
const LINE_INTERVAL: Duration = Duration::from_millis(500);
/// More bars than this don't help anybody.
const MAX_BARS: usize = 30;

/// Where progress is shown.
pub(crate) enum Display {
    Bars(Bars),
    Lines(Lines),
}

impl Display {
    /// Bars where people look at a terminal, else lines.
    pub(crate) fn for_stderr() -> Self {
        if output::is_interactive() {
            Self::Bars(Bars::new())
        } else {
            Self::Lines(Lines::default())
        }
    }

    /// Shows what has changed.
    pub(crate) fn update(&mut self, progress: &Progress) {
        match self {
            Self::Bars(bars) => bars.update(&progress.nodes),
            Self::Lines(lines) => {
                for line in lines.update(&progress.nodes, Instant::now()) {
                    say!("{line}");
                }
            }
        }
    }

    /// Says a line beside the counts.
    pub(crate) fn say(&self, line: &str) {
        match self {
            // It stands above the bars; a terminal that is gone changes nothing.
            Self::Bars(bars) => drop(bars.all.println(line)),
            Self::Lines(_) => say!("{line}"),
        }
    }

    /// Shows the last counts and says how it ended.
    pub(crate) fn finish(self, progress: &Progress, run_id: &str, duration: Duration) {
        match self {
            Self::Bars(mut bars) => {
                bars.update(&progress.nodes);
                for bar in bars.bars {
                    bar.abandon();
                }
            }
            Self::Lines(mut lines) => {
                for line in lines.rest(&progress.nodes) {
                    say!("{line}");
                }
            }
        }
        say!("{}", final_line(progress, run_id, duration));
        if let Some(line) = error_line(&progress.error) {
            say!("{line}");
        }
    }
}

/// Status, run, duration, tokens and cost.
fn final_line(progress: &Progress, run_id: &str, duration: Duration) -> String {
    let mut line = format!(
        "{} {run_id} in {}",
        progress.status.unwrap_or("still running:"),
        span_text(duration)
    );
    let usage = &progress.usage;
    if usage.input_tokens + usage.output_tokens > 0 {
        line.push_str(&format!(" · {} tokens", usage.input_tokens + usage.output_tokens));
    }
    if usage.cost_micros > 0 {
        let (whole, rest) = (usage.cost_micros / 1_000_000, usage.cost_micros % 1_000_000);
        line.push_str(&format!(" · cost {whole}.{rest:06}"));
    }
    line
}

/// `error gone at node fetch, attempt 2: the service is gone`
fn error_line(error: &Value) -> Option<String> {
    let mut line = format!("error {}", error["code"].as_str()?);
    if let Some(node) = error["node"].as_str() {
        line.push_str(&format!(" at node {node}"));
    }
    if let Some(attempt) = error["attempt"].as_u64() {
        line.push_str(&format!(", attempt {attempt}"));
    }
    Some(format!("{line}: {}", error["message"].as_str().unwrap_or_default()))
}

/// `12ms`, `1.4s`, `3m 5s`.
fn span_text(duration: Duration) -> String {
    let (ms, s) = (duration.as_millis(), duration.as_secs());
    match s {
        0 => format!("{ms}ms"),
        1..60 => format!("{:.1}s", duration.as_secs_f64()),
        60..3_600 => format!("{}m {}s", s / 60, s % 60),
        _ => format!("{}h {}m", s / 3_600, s % 3_600 / 60),
    }
}

/// One bar a node, in the order in which the run reached them.
pub(crate) struct Bars {
    all: MultiProgress,
    bars: Vec<ProgressBar>,
    style: ProgressStyle,
}

impl Bars {
    fn new() -> Self {
        let template = if output::has_colour(true) {
            "  {prefix:20!} {bar:24.cyan/dim} {msg}"
        } else {
            "  {prefix:20!} {bar:24} {msg}"
        };
        let style = ProgressStyle::with_template(template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("━╸─");
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(12));
        Self { all, bars: Vec::new(), style }
    }

    fn update(&mut self, nodes: &[NodeCount]) {
        for (at, node) in nodes.iter().enumerate().take(MAX_BARS) {
            if at == self.bars.len() {
                let bar = self.all.add(ProgressBar::new(node.total));
                bar.set_style(self.style.clone());
                bar.set_prefix(node.node.clone());
                self.bars.push(bar);
            }
            let bar = &self.bars[at];
            bar.set_length(node.total);
            bar.set_position(node.ended());
            bar.set_message(node.text());
        }
    }
}

/// What was last said of each node, and when.
#[derive(Default)]
pub(crate) struct Lines {
    said: HashMap<String, (Instant, String)>,
}

impl Lines {
    /// What is due: a node that was never named, or not for a while; and before it what happened
    /// before it.
    fn update(&mut self, nodes: &[NodeCount], now: Instant) -> Vec<String> {
        let unsaid = self.unsaid(nodes);
        let is_due = |node: &&NodeCount| {
            let said = self.said.get(&node.node);
            said.is_none_or(|(at, _)| now.duration_since(*at) >= LINE_INTERVAL)
        };
        let due = unsaid.iter().rposition(is_due).map_or(0, |last| last + 1);
        let mut lines = Vec::new();
        for node in &unsaid[..due] {
            let text = node.text();
            lines.push(format!("  {} {text}", node.node));
            self.said.insert(node.node.clone(), (now, text));
        }
        lines
    }

    /// The last counts of nodes whose last change wasn't said.
    fn rest(&mut self, nodes: &[NodeCount]) -> Vec<String> {
        let line = |node: &&NodeCount| format!("  {} {}", node.node, node.text());
        self.unsaid(nodes).iter().map(line).collect()
    }

    /// The nodes of which something else is to be said, in the order of their last changes.
    fn unsaid<'n>(&self, nodes: &'n [NodeCount]) -> Vec<&'n NodeCount> {
        let is_news = |node: &&NodeCount| {
            self.said.get(&node.node).is_none_or(|(_, said)| *said != node.text())
        };
        let mut unsaid: Vec<_> = nodes.iter().filter(is_news).collect();
        unsaid.sort_by_key(|node| node.changed);
        unsaid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(total: u64, done: u64) -> NodeCount {
        NodeCount { node: "judge".to_owned(), total, done, ..NodeCount::default() }
    }

    #[test]
    fn lines_are_kept_apart_and_the_last_one_is_not_lost() {
        let mut lines = Lines::default();
        let start = Instant::now();
        assert_eq!(lines.update(&[node(9, 0)], start), ["  judge 0/9"]);
        assert!(lines.update(&[node(9, 1)], start).is_empty());
        assert_eq!(lines.update(&[node(9, 2)], start + LINE_INTERVAL), ["  judge 2/9"]);
        assert!(lines.update(&[node(9, 2)], start + LINE_INTERVAL * 3).is_empty());
        assert_eq!(lines.rest(&[node(9, 9)]), ["  judge 9/9"]);
    }

    #[test]
    fn lines_follow_the_events() {
        let of = |name: &str, done, changed| NodeCount {
            node: name.to_owned(),
            changed,
            ..node(3, done)
        };
        let mut lines = Lines::default();
        let start = Instant::now();
        lines.update(&[of("split", 0, 1)], start);
        let next = [of("split", 3, 2), of("judge", 3, 9), of("pick", 1, 7)];
        assert_eq!(lines.update(&next, start), ["  split 3/3", "  pick 1/3", "  judge 3/3"]);
        assert_eq!(
            lines.rest(&[of("split", 2, 20), of("pick", 2, 12)]),
            ["  pick 2/3", "  split 2/3"]
        );
    }

    #[test]
    fn the_final_line_says_duration_tokens_and_cost() {
        let mut progress = Progress { status: Some("completed"), ..Progress::default() };
        progress.usage.input_tokens = 40;
        progress.usage.output_tokens = 2;
        progress.usage.cost_micros = 1_500_000;
        assert_eq!(
            final_line(&progress, "run_1", Duration::from_millis(1_440)),
            "completed run_1 in 1.4s · 42 tokens · cost 1.500000"
        );
    }

    #[test]
    fn an_error_is_told_in_words() {
        let error = serde_json::json!({
            "code": "gone", "message": "it is gone", "kind": "permanent", "node": "fetch",
            "attempt": 2, "detail": {"x": 1}
        });
        let line = error_line(&error).expect("there is one");
        assert_eq!(line, "error gone at node fetch, attempt 2: it is gone");
        let run = serde_json::json!({"code": "run_timeout", "message": "too long", "node": null});
        assert_eq!(error_line(&run).expect("there is one"), "error run_timeout: too long");
        assert_eq!(error_line(&Value::Null), None);
    }

    #[test]
    fn spans_are_short() {
        let text = |ms| span_text(Duration::from_millis(ms));
        assert_eq!([text(12), text(61_000), text(3_700_000)], ["12ms", "1m 1s", "1h 1m"]);
    }
}
