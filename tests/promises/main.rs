//! What Wonder promises, one file each, named by its number: the output reads as the contract.

use system_tests::{Platform, Setting};

mod p01_an_answered_command_survives_kill_9;
mod p02_a_refused_command_wrote_nothing_and_a_key_answers_once;
mod p03_a_run_never_has_two_writers;
mod p04_positions_are_contiguous_and_ordered;
mod p05_a_projection_neither_skips_nor_repeats;
mod p06_a_rebuilt_read_model_equals_the_live_one;
mod p07_the_fold_is_the_state_at_every_step;
mod p08_an_outcome_is_applied_exactly_once;
mod p09_a_task_that_is_owed_is_dispatched_in_the_end;
mod p10_a_vanished_workers_task_is_never_silently_done;
mod p11_timers_fire_once_and_never_early;
mod p12_a_poison_task_ends_visible;
mod p13_cancel_always_succeeds;
mod p14_what_is_over_a_limit_is_refused_before_anything_is_written;
mod p15_a_large_fan_out_completes_beside_other_runs;
mod p16_a_stream_resumes_without_a_gap_or_a_duplicate;
mod p17_it_degrades_and_recovers_unattended;
mod p18_every_event_ever_written_decodes;
mod p19_people_signals_and_time_bring_a_run_on;
mod p20_parents_and_children_never_lose_each_other;
mod p21_what_a_run_did_is_undone_newest_first;
mod p22_what_a_trigger_is_told_starts_one_run;
mod p23_runs_of_a_key_go_in_turn;
mod p24_a_paused_workflow_stands_still;
mod p25_a_version_is_compared_before_runs_follow_it;
mod p26_a_fork_goes_on_from_any_event;
mod p27_tampering_with_history_is_detected;
mod p28_what_was_can_be_seen_and_explained;
mod p29_what_has_ended_is_tried_again;
mod p30_what_happened_is_summed_once;
mod p31_who_did_what_is_proven_offline;
mod p32_a_run_is_taken_along_as_one_file;
mod p33_what_goes_on_is_watched_and_looked_up;
mod p34_what_has_ended_is_archived;
mod p35_one_change_is_tried_on_many_runs;
mod p37_an_answer_is_followed_as_it_comes;
mod p38_what_is_held_stays_and_what_goes_was_written_before;

/// The real binary on an empty folder.
async fn platform() -> Platform {
    Platform::start(env!("CARGO_BIN_EXE_wonder")).await
}

/// The same, as one process or as several.
async fn platform_in(setting: Setting) -> Platform {
    Platform::start_as(env!("CARGO_BIN_EXE_wonder"), setting).await
}
