//! What Wonder promises, one file each, named by its number: the output reads as the contract.

use system_tests::Platform;

mod p01_an_answered_command_survives_kill_9;

/// The real binary on an empty folder.
async fn platform() -> Platform {
    Platform::start(env!("CARGO_BIN_EXE_wonder")).await
}
