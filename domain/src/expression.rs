//! Expressions: CEL, pure, typed and bounded; `${…}` inside JSON values; Jinja for prose.
//!
//! [`Expression`] is one CEL source, [`Binding`] a JSON value with `${…}` in its texts,
//! [`Template`] a Jinja text. All are compiled once and evaluated over a [`Scope`].

pub mod binding;
pub mod cel;
pub mod scope;
pub mod template;

pub use binding::Binding;
pub use cel::{EvalError, Expression, InvalidExpression};
pub use scope::{Roots, Scope};
pub use template::{InvalidTemplate, Template};

/// The candidate most like a name that isn't known, where one is like it at all.
pub(crate) fn closest<'c>(
    name: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<&'c str> {
    const LIKE: f64 = 0.7;
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(score, _)| *score >= LIKE)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests;
