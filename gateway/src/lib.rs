//! The edge: REST, event streams, authentication, the API's description and its errors.
//!
//! No business logic. A request is read, checked against limits, signed in, and handed to the
//! traits of `protocol`; what they answer goes out. [`table`] is the list of all routes: the
//! router, the permissions and the OpenAPI document are made from it, so that none of them can
//! know a route that the others don't.

mod api_keys;
mod audit;
mod auth;
mod body;
mod bundles;
mod call;
mod config;
mod connections;
mod definitions;
mod download;
mod edge;
mod environment;
mod ephemeral;
mod error_pages;
mod events;
mod experiments;
mod feed;
mod forks;
mod gates;
mod headers;
mod health;
mod json;
mod logs;
mod metrics;
mod openapi;
mod operations;
mod pace;
mod probes;
mod problem;
mod reference;
mod refusals;
mod remote;
mod resources;
mod retention;
mod route;
mod runs;
mod schema;
mod server;
mod signals;
mod socket;
mod sse;
mod table;
mod time_travel;
mod trace;
mod triggers;

pub use auth::Secret;
pub use config::{Administrator, AuthConfig, Gateway, GatewayConfig, RenderMetrics};
pub use environment::{Environment, SystemEnvironment};
pub use error_pages::documented_codes;
pub use health::{Dependency, Health, Readiness};
pub use openapi::document;
pub use probes::{Operations, serve_operations};
pub use problem::EDGE_CODES;
pub use remote::Remote;
pub use route::{Permission, Route, Verb};
pub use server::{ServeError, router, serve};
pub use table::routes;
