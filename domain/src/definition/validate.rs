//! Checking definitions.
