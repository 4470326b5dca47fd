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
