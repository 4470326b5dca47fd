//! effect
pub struct Owed;
