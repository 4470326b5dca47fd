//! error
pub struct Refusal;
