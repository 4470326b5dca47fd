//! The worker at its own edge: tasks in, outcomes out, servers on loopback.

#[path = "worker/http.rs"]
mod http;
#[path = "worker/intake.rs"]
mod intake;
#[path = "worker/llm.rs"]
mod llm;
#[path = "worker/pure.rs"]
mod pure;
#[path = "worker/steps.rs"]
mod steps;
#[path = "worker/streams.rs"]
mod streams;
#[path = "worker/support.rs"]
mod support;
