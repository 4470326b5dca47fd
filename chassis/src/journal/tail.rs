//! The tail: committed events in position order, for readers that follow the journal.
pub struct Tail;
pub struct TailError;
