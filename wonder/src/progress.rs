//! A run's progress, folded from its events for display only: counts for each node.

use std::collections::HashMap;

use domain::run::event::{Fired, OpenedBranches, TokenId};
use domain::run::{Event, Usage};
use protocol::EventEnvelope;
use serde_json::Value;

mod display;

pub(crate) use display::Display;

/// How many tokens of a node are where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct NodeCount {
    pub(crate) node: String,
    /// Tokens that came or will come, as far as declared: branches count when they are opened.
    pub(crate) total: u64,
    pub(crate) done: u64,
    pub(crate) failed: u64,
    /// Tokens that stand at the node, back-offs included.
    pub(crate) running: u64,
    /// Of those, the ones that wait for their next attempt.
    pub(crate) backing_off: u64,
}

impl NodeCount {
    /// `12/40 · 2 failed`, or one word for a node with a single token.
    pub(crate) fn text(&self) -> String {
        let mut text = match (self.total, self.done, self.failed, self.backing_off) {
            (1, 1, ..) => "done".to_owned(),
            (1, _, 1, _) => "failed".to_owned(),
            (1, .., 1) => "retrying".to_owned(),
            (1, ..) => "running".to_owned(),
            _ => format!("{}/{}", self.done, self.total),
        };
        if self.total > 1 {
            for (count, word) in [(self.failed, "failed"), (self.backing_off, "retrying")] {
                if count > 0 {
                    text.push_str(&format!(" · {count} {word}"));
                }
            }
        }
        text
    }
}

/// A token at a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Working,
    BackingOff,
    Ended,
}

/// What has happened so far.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// In the order in which the run reached them.
    pub(crate) nodes: Vec<NodeCount>,
    pub(crate) usage: Usage,
    /// `completed`, `failed`, `cancelled` or `timed_out`, once it has ended.
    pub(crate) status: Option<&'static str>,
    pub(crate) output: Value,
    pub(crate) error: Value,
    tokens: HashMap<TokenId, (usize, Standing)>,
    opened: HashMap<u64, Vec<OpenedBranches>>,
}

impl Progress {
    /// Takes an event of the journal; one that it doesn't know changes nothing.
    pub(crate) fn take(&mut self, envelope: &EventEnvelope) {
        let mut payload = envelope.payload.clone();
        if let Some(payload) = payload.as_object_mut() {
            payload.insert("type".to_owned(), envelope.event_type.clone().into());
        }
        if let Ok(event) = serde_json::from_value(payload) {
            self.fold(event);
        }
    }

    fn fold(&mut self, event: Event) {
        match event {
            Event::RunStarted(started) => self.arrive(1, &started.start, true),
            Event::TaskSucceeded { token, usage, .. } => {
                self.usage.add(&usage);
                self.end(token, true);
            }
            Event::TaskFailed { token, retry_at, usage, .. } => {
                self.usage.add(&usage);
                match retry_at {
                    Some(_) => self.stand(token, Standing::BackingOff),
                    None => self.end(token, false),
                }
            }
            Event::RetryStarted { token, .. } => self.stand(token, Standing::Working),
            Event::NodeComputed { token, .. } => self.end(token, true),
            Event::NodeFailed { token, .. } => self.end(token, false),
            Event::TokenRouted { token, fired, opened, .. } => {
                self.end(token, true);
                self.tokens.remove(&token);
                for fired in fired {
                    if let Fired::Moved { token, node, .. } = fired {
                        self.arrive(token, &node, true);
                    }
                }
                for opened in opened {
                    for branches in &opened.branches {
                        let at = self.node(&branches.node);
                        self.nodes[at].total += branches.count;
                    }
                    self.opened.insert(opened.instance, opened.branches);
                }
            }
            Event::BranchesSpawned { instance, index, token, count, .. } => {
                for offset in 0..count {
                    if let Some(node) = self.branch_node(instance, index + offset) {
                        self.arrive(token + offset, &node, false);
                    }
                }
            }
            Event::JoinFired { token, node, .. } => self.arrive(token, &node, true),
            Event::JoinFailed { .. } | Event::GroupEnded { .. } => {}
            Event::RunCompleted { output } => {
                self.output = output;
                self.finish("completed");
            }
            Event::RunFailed { error } => self.fail("failed", &error),
            Event::RunTimedOut { error } => self.fail("timed_out", &error),
            Event::RunCancelled { .. } => self.finish("cancelled"),
        }
    }

    fn fail(&mut self, status: &'static str, error: &domain::run::RunError) {
        self.error = serde_json::to_value(error).unwrap_or_default();
        self.finish(status);
    }

    fn finish(&mut self, status: &'static str) {
        self.status = Some(status);
        for node in &mut self.nodes {
            (node.running, node.backing_off) = (0, 0);
        }
    }

    fn node(&mut self, name: &str) -> usize {
        if let Some(at) = self.nodes.iter().position(|node| node.node == name) {
            return at;
        }
        self.nodes.push(NodeCount { node: name.to_owned(), ..NodeCount::default() });
        self.nodes.len() - 1
    }

    fn arrive(&mut self, token: TokenId, name: &str, is_new: bool) {
        let at = self.node(name);
        let node = &mut self.nodes[at];
        node.total += u64::from(is_new);
        node.running += 1;
        self.tokens.insert(token, (at, Standing::Working));
    }

    fn stand(&mut self, token: TokenId, now: Standing) {
        let Some((at, standing)) = self.tokens.get_mut(&token) else {
            return;
        };
        let node = &mut self.nodes[*at];
        match (*standing, now) {
            (Standing::Working, Standing::BackingOff) => node.backing_off += 1,
            (Standing::BackingOff, Standing::Working) => {
                node.backing_off = node.backing_off.saturating_sub(1);
            }
            (Standing::Ended, _) => return,
            _ => {}
        }
        *standing = now;
    }

    fn end(&mut self, token: TokenId, succeeded: bool) {
        self.stand(token, Standing::Working);
        let Some((at, standing)) = self.tokens.get_mut(&token) else {
            return;
        };
        if *standing == Standing::Ended {
            return;
        }
        *standing = Standing::Ended;
        let node = &mut self.nodes[*at];
        node.running = node.running.saturating_sub(1);
        if succeeded {
            node.done += 1;
        } else {
            node.failed += 1;
        }
    }

    fn branch_node(&self, instance: u64, index: u64) -> Option<String> {
        let mut before = 0;
        for branches in self.opened.get(&instance)? {
            before += branches.count;
            if index < before {
                return Some(branches.node.clone());
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
