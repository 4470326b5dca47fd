//! command
pub struct Command;
