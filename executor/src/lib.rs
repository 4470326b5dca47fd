//! The work service: stateless workers that perform tasks and report what became of them.
//!
//! # What stands in `with`
//!
//! Every text in `with` is a binding (`${…}`, CEL over `input`, `run` and, in a task of steps,
//! `steps`), except prose: `url` of `http`; `system`, `prompt` and each `messages[].content` of
//! `llm`. Prose is a Jinja template. It sees the members of the mapped input by their names, and
//! `input`, `run` and `steps`. Prose without any Jinja mark (`{{`, `{%`, `{#`) but with `${` is a
//! binding too, so that `url: "${input.url}"` does what it says. What a binding or a variable
//! yields is data: it is never read as a template again.
//!
//! Taken literally, because they choose what is compiled or trusted: `schema`, `prompt_spec`, an
//! inline `model` object, and `fail` of `mock`.
//!
//! # What a task of steps answers
//!
//! An object with each step's result under its name (`null` where it was left out, `{"error": …}`
//! where it failed and the task went on), and under `last` the result of the last step that ran.

mod action;
mod compiled;
mod config;
mod context;
mod executor;
mod fault;
mod flights;
mod guard;
mod intake;
mod live;
mod meters;
mod remote;
mod schema;
mod secrets;
mod steps;
mod web;

pub use config::{Environment, ExecutorConfig, HttpLimits};
pub use executor::{Executor, StartError};
pub use guard::{AllowedHost, InvalidAllowedHost};
pub use remote::{RemoteSink, RemoteTasks};
