//! The plan: a definition compiled and resolved, as the engine runs it.

pub struct Action;
pub struct Plan;
pub struct Resolved;
