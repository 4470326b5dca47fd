//! What goes to stdout: tables for people, and the API's own JSON for programs.

use std::fmt;
use std::io::{self, IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, TableStyle};
use indicatif::{ProgressBar, ProgressDrawTarget};
use serde_json::Value;

use crate::client::Answer;
use crate::exit::Failure;

/// The form of the data on stdout.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Columns for people
    #[default]
    Table,
    /// The API's body, unchanged
    Json,
    /// One JSON document a line; of a list, one for each item
    Jsonl,
    /// The API's body as YAML
    Yaml,
}

/// A column: its head, and the pointer (RFC 6901) of its value in an item.
pub(crate) type Column = (&'static str, &'static str);

impl Format {
    /// Prints an answer that is a list with `items`.
    pub(crate) fn list(self, answer: &Answer, columns: &[Column]) -> Result<(), Failure> {
        let body: Value = answer.read()?;
        let items = body["items"].as_array().cloned().unwrap_or_default();
        match self {
            Self::Table => line(&table(&items, columns)),
            Self::Json => line(&answer.text),
            Self::Jsonl => items.iter().try_for_each(|item| line(&item.to_string())),
            Self::Yaml => line(&yaml(&body)?),
        }
    }

    /// Prints a page of a list, and says how to get the next one.
    pub(crate) fn page(self, answer: &Answer, columns: &[Column]) -> Result<(), Failure> {
        self.list(answer, columns)?;
        let body: Value = answer.read()?;
        if let Some(cursor) = body["next_cursor"].as_str() {
            say!("more with --cursor {cursor}");
        }
        Ok(())
    }

    /// Prints an answer that is one thing.
    pub(crate) fn one(self, answer: &Answer, columns: &[Column]) -> Result<(), Failure> {
        let body: Value = answer.read()?;
        match self {
            Self::Table => line(&sheet(&body, columns)),
            Self::Json => line(&answer.text),
            Self::Jsonl => line(&body.to_string()),
            Self::Yaml => line(&yaml(&body)?),
        }
    }

    /// Prints one thing of our own making.
    pub(crate) fn value(self, value: &Value, columns: &[Column]) -> Result<(), Failure> {
        self.one(&Answer { text: value.to_string() }, columns)
    }
}

/// Prints one line of data. A reader that went away (`| head`) is no failure.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{}", text.trim_end_matches('\n')).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => Ok(other?),
    }
}

/// Says one line on stderr, formatted as by `println!`. Talk that nobody can hear (a pipe without a
/// reader, a full disk) changes nothing about what is done and how it ends.
macro_rules! say {
    ($($words:tt)*) => { $crate::output::tell(format_args!($($words)*)) };
}
pub(crate) use say;

/// What stands behind [`say`].
pub(crate) fn tell(words: fmt::Arguments<'_>) {
    // Written at once, so that lines of several threads don't mix.
    io::stderr().write_all(format!("{words}\n").as_bytes()).ok();
}

/// Whether people look at stderr, so that bars may be drawn there.
pub(crate) fn is_interactive() -> bool {
    io::stderr().is_terminal() && std::env::var_os("CI").is_none()
}

/// A bar on stderr where people look at it, else one that isn't drawn.
pub(crate) fn bar(length: Option<u64>) -> ProgressBar {
    let target =
        if is_interactive() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    ProgressBar::with_draw_target(length, target)
}

/// Whether colours are wanted on a stream: a terminal, and no `NO_COLOR`.
pub(crate) fn has_colour(terminal: bool) -> bool {
    terminal
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

fn table(items: &[Value], columns: &[Column]) -> String {
    let mut table = Table::new();
    table.load_style(TableStyle::new()).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(columns.iter().map(|(head, _)| head.to_uppercase()));
    for item in items {
        table.add_row(columns.iter().map(|(_, pointer)| cell(item.pointer(pointer))));
    }
    trimmed(&table.to_string())
}

/// One thing as lines of name and value; without columns all its own keys.
fn sheet(body: &Value, columns: &[Column]) -> String {
    let mut table = Table::new();
    table.load_style(TableStyle::new()).set_content_arrangement(ContentArrangement::Disabled);
    if columns.is_empty() {
        for (key, value) in body.as_object().into_iter().flatten() {
            table.add_row([key.clone(), cell(Some(value))]);
        }
    } else {
        for (head, pointer) in columns {
            let value = body.pointer(pointer).filter(|value| !value.is_null());
            if value.is_some() {
                table.add_row([(*head).to_owned(), cell(value)]);
            }
        }
    }
    trimmed(&table.to_string())
}

fn trimmed(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    let margin = lines.iter().all(|line| line.is_empty() || line.starts_with(' '));
    let cut = |line: &&str| {
        if margin && !line.is_empty() { line[1..].to_owned() } else { (*line).to_owned() }
    };
    lines.iter().map(cut).collect::<Vec<_>>().join("\n")
}

fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Object(map)) if map.is_empty() => String::new(),
        Some(Value::Array(list)) if list.iter().all(Value::is_string) => {
            let texts: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
            texts.join(", ")
        }
        Some(other) => other.to_string(),
    }
}

fn yaml(value: &Value) -> Result<String, Failure> {
    Ok(serde_saphyr::to_string(value).map_err(anyhow::Error::from)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_has_a_head_and_a_row_for_each_item() {
        let items = [json!({"id": "run_1", "error": {"code": "x"}}), json!({"id": "run_22"})];
        let text = table(&items, &[("id", "/id"), ("error", "/error/code")]);
        let rows: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(rows, [vec!["ID", "ERROR"], vec!["run_1", "x"], vec!["run_22"]]);
    }

    #[test]
    fn a_sheet_leaves_out_what_is_not_there() {
        let body = json!({"id": "run_1", "error": null, "usage": {"input_tokens": 3}});
        let text =
            sheet(&body, &[("id", "/id"), ("error", "/error"), ("tokens", "/usage/input_tokens")]);
        let rows: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(rows, [vec!["id", "run_1"], vec!["tokens", "3"]]);
    }
}
