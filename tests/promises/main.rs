//! What Wonder promises, one file each, named by its number: the output reads as the contract.

use system_tests::Platform;

mod p01_an_answered_command_survives_kill_9;
mod p02_a_refused_command_wrote_nothing_and_a_key_answers_once;
mod p04_positions_are_contiguous_and_ordered;
mod p05_a_projection_neither_skips_nor_repeats;

/// The real binary on an empty folder.
async fn platform() -> Platform {
    Platform::start(env!("CARGO_BIN_EXE_wonder")).await
}
