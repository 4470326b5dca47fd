//! The run: one execution of a definition, as a pure aggregate.
//!
//! [`decide`] turns a command into events or a refusal and changes nothing; [`Run::evolve`] folds
//! an event and can't refuse; [`Run::owed`] says what the folded state still waits for.

pub mod adoption;
pub mod command;
pub mod course;
pub mod decide;
pub mod effect;
pub mod error;
pub mod event;
mod evolve;
pub mod fork;
pub mod rehearsal;
pub mod replay;
mod scope;
pub mod state;
pub mod vars;

#[cfg(test)]
mod tests;

pub use command::Command;
pub use decide::{Decision, check_start, decide};
pub use effect::Owed;
pub use error::Refusal;
pub use event::{Event, FailureKind, RunError, Usage};
pub use state::{Run, RunStatus, STATE_VERSION};
