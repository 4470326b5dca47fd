//! The run's behaviour: given events, when a command, then events; and properties over random
//! graphs.

mod fixture;
mod joins;
mod properties;
mod routing;
