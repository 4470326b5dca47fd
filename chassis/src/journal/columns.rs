//! What both storages keep alike in their columns.

use super::{ReadError, Snapshot, Written};

pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(number: i64) -> Result<u64, ReadError> {
    u64::try_from(number).map_err(|_| ReadError::Damaged(format!("{number} is negative").into()))
}

pub(super) fn written(
    (position, aggregate_type, aggregate_id): (i64, String, String),
) -> Result<Written, ReadError> {
    let (aggregate_type, aggregate_id) = (aggregate_type.into(), aggregate_id.into());
    Ok(Written { position: unsigned(position)?, aggregate_type, aggregate_id })
}

pub(super) fn snapshot(
    (sequence, state): (i64, Vec<u8>),
    version: u32,
) -> Result<Snapshot, ReadError> {
    Ok(Snapshot { sequence: unsigned(sequence)?, version, state: state.into() })
}
