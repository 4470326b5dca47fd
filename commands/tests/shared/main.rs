//! Write sides that share a journal on PostgreSQL, as coordinators in several processes do.

mod coordinators;
mod ownership;
mod resources;
