//! Plumbing that knows no business noun.

pub mod journal;
