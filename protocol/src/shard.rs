//! Shards: runs are spread over a fixed number of them by their id, and each has one owner.

use domain::ids::RunId;
use uuid::Uuid;

/// How many shards there are. A store keeps this number for good.
pub const SHARDS: u16 = 64;

/// The shard of a run: the low bits of its id, which are random.
pub fn shard_of(run_id: RunId) -> u16 {
    let low = run_id.bits().as_u128() % u128::from(SHARDS);
    u16::try_from(low).unwrap_or_default()
}

/// The run id that these bits give in a shard.
pub fn run_id_in(shard: u16, bits: Uuid) -> RunId {
    let high = bits.as_u128() - bits.as_u128() % u128::from(SHARDS);
    RunId::new(Uuid::from_u128(high + u128::from(shard % SHARDS)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_made_for_a_shard_lies_in_it() {
        let bits = Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_ffff);
        assert_eq!(shard_of(RunId::new(bits)), 63);
        for shard in 0..SHARDS {
            let run_id = run_id_in(shard, bits);
            assert_eq!(shard_of(run_id), shard);
            assert_eq!(run_id.bits().get_version_num(), 7);
        }
    }
}
