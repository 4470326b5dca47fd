//! What Wonder means: definitions, expressions, runs and resources, as pure synchronous code.
//!
//! Nothing here reads a clock, draws chance or does I/O: time, ids and chance arrive in commands.

pub mod access;
pub mod audit;
pub mod bundle;
pub mod codec;
pub mod definition;
pub mod experiment;
pub mod expression;
pub mod hold;
pub mod ids;
pub mod labels;
pub mod limits;
pub mod metric;
pub mod queue;
pub mod rate;
pub mod resource;
pub mod retention;
pub mod run;
pub mod secrets;
pub mod span;
pub mod trigger;
