//! The coordinator through the command service's own edge: commands in, a fake worker on the task
//! queue, and a journal that counts and can fail.

mod again;
mod children;
mod commits;
mod experiments;
mod faults;
mod forked_children;
mod forks;
mod large_runs;
mod limits;
mod long_forks;
mod long_runs;
mod lost_workers;
mod pauses;
mod platform;
mod queued_forks;
mod queues;
mod rates;
mod repetition;
mod retries;
mod reunions;
mod undone;
mod watched;
mod workflows;
