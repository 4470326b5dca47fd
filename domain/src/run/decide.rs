//! decide
pub struct Decision;
pub fn decide() {}
