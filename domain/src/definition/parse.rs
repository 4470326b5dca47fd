//! Reading definitions.
