//! `wonder runs explain`: why a run, or a token of it, is where it is, in sentences.

use protocol::{
    Came, Explanation, Fact, JoinExplanation, LedTo, Left, Looked, TokenExplanation, Way,
};
use serde_json::{Map, Value};

use super::Global;
use super::runs::segment;
use super::state::moment;
use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::output::{Format, line};

/// Which run, and what of it.
#[derive(Debug, clap::Args)]
pub(crate) struct ExplainArgs {
    /// The run (`run_…`)
    id: String,
    #[command(flatten)]
    asked: AskedArgs,
}

/// What of a run.
#[derive(Debug, clap::Args)]
pub(super) struct AskedArgs {
    /// This token
    #[arg(long, value_name = "N", conflicts_with = "node")]
    pub(super) token: Option<u64>,
    /// The newest tokens at this node, and why others didn't come there
    #[arg(long, value_name = "NAME")]
    pub(super) node: Option<String>,
    /// As it was after this event (its sequence), or at this time (RFC 3339) [default: now]
    #[arg(long, value_name = "N|TIME", value_parser = moment)]
    pub(super) at: Option<String>,
}

pub(super) async fn execute(
    global: &Global,
    client: &Client,
    args: ExplainArgs,
) -> Result<Exit, Failure> {
    let mut query = Vec::new();
    let mut push = |key, value: Option<String>| query.extend(value.map(|value| (key, value)));
    push("token", args.asked.token.map(|token| token.to_string()));
    push("node", args.asked.node);
    push("at", args.asked.at);
    let answer = client.get(&format!("/runs/{}/explain", segment(&args.id)?), &query).await?;
    match global.output {
        Format::Table => line(&text(&answer.read()?))?,
        other => other.one(&answer, &[])?,
    }
    Ok(Exit::Completed)
}

/// An explanation for people. `#12` is the event with that sequence.
pub(super) fn text(explanation: &Explanation) -> String {
    let mut lines = vec![format!(
        "{} at event {}: {}",
        explanation.run_id, explanation.sequence, explanation.why
    )];
    let asked = !explanation.tokens.is_empty() || !explanation.ways.is_empty();
    if !asked {
        lines.extend(explanation.because.iter().map(|fact| format!("  {}", of_fact(fact))));
        for item in &explanation.waiting {
            let token = item.token.map(|token| format!("token {token}"));
            let group = item.group.as_ref().map(|group| format!("the group {group}"));
            let what = token.or(group).unwrap_or_else(|| "the run".to_owned());
            let at = item.node.as_ref().map_or_else(String::new, |node| format!(" at {node}"));
            lines.push(format!("  {what}{at} waits for {}: {}", item.what, item.by));
        }
        if explanation.waiting_left_out > 0 {
            lines.push(format!("  and {} more", explanation.waiting_left_out));
        }
    }
    for token in &explanation.tokens {
        lines.push(String::new());
        of_token(token, &mut lines);
    }
    if explanation.tokens_left_out > 0 {
        lines.push(String::new());
        lines.push(format!("and {} older tokens", explanation.tokens_left_out));
    }
    if !explanation.ways.is_empty() {
        lines.push(String::new());
        lines.push("ways that lead here:".to_owned());
        lines.extend(explanation.ways.iter().flat_map(of_way));
    }
    lines.join("\n")
}

fn of_fact(fact: &Fact) -> String {
    let token = fact.token.map(|token| format!("token {token}"));
    let node = fact.node.as_ref().map(|node| format!(" at {node}")).unwrap_or_default();
    let about = token.map(|token| format!("{token}{node}: ")).unwrap_or_default();
    format!("#{} {about}{}", fact.sequence, fact.what)
}

fn of_token(token: &TokenExplanation, lines: &mut Vec<String>) {
    let branch = match (&token.group, token.index) {
        (Some(group), Some(index)) => format!(", branch {index} of {group}"),
        (None, Some(index)) => format!(", branch {index}"),
        _ => String::new(),
    };
    lines.push(format!("token {} at {} ({}{branch})", token.token, token.node, token.status));
    lines.push(format!("  came: #{} {}", token.came.sequence, of_came(&token.came)));
    if let Some(taken) = &token.came.taken {
        lines.extend(of_condition(taken).map(|condition| format!("        {condition}")));
    }
    for fact in &token.did {
        lines.push(format!("  did:  #{} {}", fact.sequence, fact.what));
    }
    if let Some(item) = &token.waits_for {
        lines.push(format!("  waits for {}: {}", item.what, item.by));
    }
    if let Some(left) = &token.left {
        of_left(left, lines);
    }
    if let Some(join) = &token.join {
        lines.push(format!("  its group: {}", of_join(join)));
    }
}

fn of_came(came: &Came) -> String {
    let from = match (came.from_token, &came.from_node) {
        (Some(token), Some(node)) => format!("token {token} at {node}"),
        (Some(token), None) => format!("token {token}"),
        (None, _) => String::new(),
    };
    match (&*came.by, &came.taken, &came.join) {
        ("start", ..) => "the run started here".to_owned(),
        ("undo", ..) => format!("to undo what {from} did"),
        ("join", _, Some(join)) => format!("out of the join: {}", of_join(join)),
        ("branch", Some(taken), _) => format!("from {from}, as a branch: {}", of_looked(taken)),
        (_, Some(taken), _) => format!("from {from}: {}", of_looked(taken)),
        (_, None, _) => format!("from {from}"),
    }
}

fn of_left(left: &Left, lines: &mut Vec<String>) {
    let how = match (left.failed, left.transitions.iter().any(|one| one.verdict == "fired")) {
        (true, _) => "its failure went up, as no transition takes it",
        (false, true) => "it went on",
        (false, false) => "it ended, as no transition fired",
    };
    lines.push(format!("  left: #{} {how}", left.sequence));
    for looked in &left.transitions {
        lines.push(format!("        {}", of_looked(looked)));
        lines.extend(of_condition(looked).map(|condition| format!("          {condition}")));
    }
}

fn of_looked(looked: &Looked) -> String {
    let Looked { from, to, tier, on, .. } = looked;
    let on = if on == "success" { String::new() } else { format!(" on {on}") };
    let verdict = match &*looked.verdict {
        "fired" => "fired",
        "not_held" => "didn't hold",
        "earlier_tier" => "wasn't looked at: a tier before it held",
        "other_outcome" => "wasn't looked at: it is for another outcome",
        other => other,
    };
    let led_to = looked.led_to.as_ref().map(of_led_to).unwrap_or_default();
    format!("{from} -> {to}{on} (tier {tier}): {verdict}{led_to}")
}

fn of_led_to(led_to: &LedTo) -> String {
    let LedTo { token, instance, branches, arrived, late, iteration } = led_to;
    let late = if *late { ", too late" } else { "" };
    let iteration =
        iteration.map(|count| format!(", time {count} of this way")).unwrap_or_default();
    let what = match (token, instance, branches) {
        (Some(token), ..) => format!(", token {token}"),
        (None, Some(_), Some(1)) => ", 1 branch".to_owned(),
        (None, Some(_), Some(count)) => format!(", {count} branches"),
        (None, Some(_), None) if *arrived => format!(", and it arrived at the join{late}"),
        _ => String::new(),
    };
    format!("{what}{iteration}")
}

/// A condition, and what it read.
fn of_condition(looked: &Looked) -> Option<String> {
    let when = looked.when.as_ref()?;
    let read = &looked.read;
    Some(if read.is_empty() {
        format!("when {when}")
    } else {
        format!("when {when}: {}", of_read(read))
    })
}

fn of_read(read: &Map<String, Value>) -> String {
    let each = read.iter().map(|(path, value)| format!("{path} = {value}"));
    each.collect::<Vec<_>>().join(", ")
}

fn of_join(join: &JoinExplanation) -> String {
    let JoinExplanation { expected, arrived, failed, ended, .. } = join;
    let name = join.group.as_deref().unwrap_or("no name");
    let needed = join.needed.map(|needed| format!(", {needed} needed")).unwrap_or_default();
    let at = join.sequence.map(|sequence| format!(" at #{sequence}")).unwrap_or_default();
    let why = match (join.timed_out, join.completed_by) {
        (true, _) => ", as its time was up".to_owned(),
        (false, Some(token)) => format!(", as token {token} completed it"),
        (false, None) => String::new(),
    };
    let error =
        join.error.as_ref().map(|error| format!(" with {}", error.code)).unwrap_or_default();
    format!(
        "{name} {}{at}{error}{why}: {expected} expected{needed}, {arrived} arrived, {failed} failed, \
         {ended} ended elsewhere",
        join.verdict
    )
}

fn of_way(way: &Way) -> Vec<String> {
    let Way { from, left, taken, .. } = way;
    if *left == 0 {
        return vec![format!("  from {from}: no token has left it")];
    }
    let mut lines = vec![format!("  from {from}: {taken} of {left} tokens took it")];
    if let (Some(token), Some(sequence), Some(last)) = (way.token, way.sequence, &way.last) {
        lines.push(format!("    last: token {token} at #{sequence}: {}", of_looked(last)));
        lines.extend(of_condition(last).map(|condition| format!("      {condition}")));
    }
    lines
}
