//! Shards: runs are spread over a fixed number of them by their id, and each has one owner.

use domain::ids::{CommandId, ExperimentId, RunId};

/// How many shards there are. A store keeps this number for good.
pub const SHARDS: u16 = 64;

/// The shard of a run: the low bits of its id, which are random.
pub fn shard_of(run_id: RunId) -> u16 {
    let low = run_id.bits().as_u128() % u128::from(SHARDS);
    u16::try_from(low).unwrap_or_default()
}

/// The shard whose owner goes on with an experiment.
pub fn shard_of_experiment(id: ExperimentId) -> u16 {
    shard_of(RunId::new(id.bits()))
}

/// The run that a command starts. A command that is sent twice names the same run, and both go to
/// the same shard.
pub fn run_of(command_id: CommandId) -> RunId {
    RunId::new(command_id.bits())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_command_names_its_run_and_the_runs_shard() {
        let bits = Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_ffc5);
        let run_id = run_of(CommandId::new(bits));
        assert_eq!(run_id, run_of(CommandId::new(bits)));
        assert_eq!(shard_of(run_id), 5);
    }
}
