//! Checking what holds expressions: mappings, values, conditions, templates.

use serde_json::Value;

use super::super::problem::escaped;
use super::super::{Mapping, ProblemCode};
use super::Checker;
use super::actions::Seen;
use super::scopes::Names;
use crate::expression::{Binding, Expression, InvalidExpression, Template, closest};

impl Checker<'_> {
    /// Checks the values of a mapping.
    pub(super) fn mapping(&mut self, place: &str, mapping: &Mapping, names: &Names<'_>) {
        for (key, value) in mapping {
            self.value(&format!("{place}/{}", escaped(key)), value, names);
        }
    }

    /// Checks a mapping whose keys are paths into the state.
    pub(super) fn state_mapping(&mut self, place: &str, mapping: &Mapping, names: &Names<'_>) {
        self.mapping(place, mapping, names);
        let mut paths: Vec<(&str, Vec<&str>)> = Vec::new();
        for key in mapping.keys() {
            let pointer = format!("{place}/{}", escaped(key));
            let Some(path) = state_path(key) else {
                let like = format!("state.{key}");
                let suggestion = state_path(&like).map(|_| like.as_str());
                let message = format!("{key:?} is no place to write: use state.<name>[.<name>…]");
                self.suggest(ProblemCode::InvalidValue, &pointer, message, suggestion);
                continue;
            };
            let clash = paths.iter().find(|(_, other)| {
                let shorter = other.len().min(path.len());
                other[..shorter] == path[..shorter]
            });
            if let Some((other, _)) = clash {
                let message = format!("{key:?} and {other:?} write into each other: map one whole");
                self.problem(ProblemCode::InvalidValue, &pointer, message);
            }
            paths.push((key, path));
        }
    }

    /// Checks a value with `${…}` in its texts.
    pub(super) fn value(&mut self, place: &str, value: &Value, names: &Names<'_>) {
        match Binding::compile(value) {
            Ok(binding) => {
                for (inside, expression) in binding.expressions() {
                    self.roots(&format!("{place}{inside}"), expression, names);
                }
            }
            Err((inside, invalid)) => self.invalid(&format!("{place}{inside}"), &invalid),
        }
    }

    /// Checks a condition, bare or as `${…}`.
    pub(super) fn condition(&mut self, place: &str, source: &str, names: &Names<'_>) {
        match Expression::compile(source) {
            Ok(expression) => self.roots(place, &expression, names),
            Err(invalid) => self.invalid(place, &invalid),
        }
    }

    /// Checks prose: a Jinja text, or one with `${…}` where it has no mark of Jinja.
    pub(super) fn template(&mut self, place: &str, value: &Value, seen: &Seen<'_>) {
        let Some(source) = value.as_str() else {
            self.problem(ProblemCode::InvalidValue, place, "this must be a text");
            return;
        };
        let is_jinja = ["{{", "{%", "{#"].iter().any(|mark| source.contains(mark));
        if source.contains("${") && !is_jinja {
            return self.value(place, value, &seen.names);
        }
        if let Some(found) = unread_expression(source) {
            let message = format!(
                "a text with Jinja marks is a template, in which {found:?} is no expression: map \
                 the value in `input` and write {{{{ name }}}}, or put {{% raw %}} around it"
            );
            self.problem(ProblemCode::InvalidTemplate, place, message);
        }
        match Template::compile(source) {
            Ok(template) => self.variables(place, &template, &seen.variables),
            Err(invalid) => {
                let line =
                    invalid.line.map_or_else(String::new, |line| format!(" (line {line} of it)"));
                let message = format!("{}{line}", invalid.message);
                self.problem(ProblemCode::InvalidTemplate, place, message);
            }
        }
    }

    fn variables(&mut self, place: &str, template: &Template, known: &[&str]) {
        for name in template.variables().iter().filter(|name| !known.contains(&name.as_str())) {
            let like = closest(name, known.iter().copied());
            let message = format!(
                "the template's variable `{name}` isn't there; there are {}: map it in the \
                 node's `input`",
                known.join(", ")
            );
            self.suggest(ProblemCode::UndeclaredName, place, message, like);
        }
    }

    fn invalid(&mut self, place: &str, invalid: &InvalidExpression) {
        self.problem(ProblemCode::InvalidExpression, place, invalid.message.clone());
    }

    fn roots(&mut self, place: &str, expression: &Expression, names: &Names<'_>) {
        for root in expression.roots().iter().filter(|root| !names.contains(root)) {
            let like = closest(root, names.iter());
            let known: Vec<_> = names.iter().collect();
            let message = format!(
                "`{root}` isn't in scope in `{}`; in scope here: {}",
                expression.source().chars().take(80).collect::<String>(),
                known.join(", ")
            );
            self.suggest(ProblemCode::UndeclaredName, place, message, like);
        }
    }
}

/// The first `${` of a template that no mark of Jinja follows, a few characters of it. A text with
/// `{% raw %}` means what it says.
fn unread_expression(source: &str) -> Option<String> {
    if source.contains("{% raw") || source.contains("{%- raw") {
        return None;
    }
    let is_jinja = |rest: &str| rest.starts_with(['{', '%', '#']);
    let mut at = source.match_indices("${").map(|(at, mark)| (at, at + mark.len()));
    let (start, _) = at.find(|(_, end)| !is_jinja(&source[*end..]))?;
    let rest = &source[start..];
    let end = rest.find('}').map_or(rest.len(), |end| end + 1);
    Some(rest[..end].chars().take(40).collect())
}

/// The names behind `state.` of a path to write to.
fn state_path(key: &str) -> Option<Vec<&str>> {
    let parts: Vec<&str> = key.strip_prefix("state.")?.split('.').collect();
    let fits = |part: &str| {
        (1..=64).contains(&part.len())
            && !part.as_bytes()[0].is_ascii_digit()
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    };
    (parts.iter().all(|part| fits(part)) && parts.len() <= 32).then_some(parts)
}
