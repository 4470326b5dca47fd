//! The run's behaviour: given events, when a command, then events; and properties over random
//! graphs.

mod cancels;
mod children;
mod experiments;
mod extended;
mod fixture;
mod forks;
mod gates;
mod joins;
mod limits;
mod long_forks;
mod mutexes;
mod pauses;
mod properties;
mod queued;
mod queued_forks;
mod rehearsals;
mod replays;
mod routing;
mod undo;
mod waits;
