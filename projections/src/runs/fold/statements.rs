//! The statements that write the changes of a batch, each taking them as one JSON parameter.

use crate::store::dialect::Dialect;

pub(super) fn insert(dialect: Dialect) -> String {
    format!(
        "insert into runs (id, workspace_id, project_id, workflow_id, status, definition_id, \
            definition_name, definition_version, definition_hash, input, output, error, \
            error_message, labels, sequence, position, started_micros, ended_micros, \
            input_tokens, output_tokens, cost_micros, paused_micros, parent_run_id, \
            root_run_id, queued_micros, queue, queue_rank, undo_cause, undo_total, undone, \
            undo_failed, undo_failures, started_by_trigger, waits, forked_from, rerun_of) \
        select change.value ->> 'id', change.value ->> 'workspace_id', \
            change.value ->> 'project_id', change.value ->> 'workflow_id', \
            change.value ->> 'status', change.value ->> 'definition_id', \
            change.value ->> 'definition_name', \
            cast(change.value ->> 'definition_version' as bigint), \
            change.value ->> 'definition_hash', change.value ->> 'input', \
            change.value ->> 'output', change.value ->> 'error', \
            change.value ->> 'error_message', change.value ->> 'labels', \
            cast(change.value ->> 'sequence' as bigint), \
            cast(change.value ->> 'position' as bigint), \
            cast(change.value ->> 'started_micros' as bigint), \
            cast(change.value ->> 'ended_micros' as bigint), \
            cast(change.value ->> 'input_tokens' as bigint), \
            cast(change.value ->> 'output_tokens' as bigint), \
            cast(change.value ->> 'cost_micros' as bigint), \
            cast(change.value ->> 'paused_micros' as bigint), \
            change.value ->> 'parent_run_id', change.value ->> 'root_run_id', \
            cast(change.value ->> 'queued_micros' as bigint), \
            change.value ->> 'queue', cast(change.value ->> 'queue_rank' as bigint), \
            change.value ->> 'undo_cause', cast(change.value ->> 'undo_total' as bigint), \
            cast(change.value ->> 'undone' as bigint), \
            cast(change.value ->> 'undo_failed' as bigint), \
            change.value ->> 'undo_failures', change.value ->> 'started_by_trigger', \
            cast(change.value ->> 'waits' as bigint), change.value ->> 'forked_from', \
            change.value ->> 'rerun_of' \
        from {} as change",
        dialect.each("$1")
    )
}

pub(super) fn insert_labels(dialect: Dialect) -> String {
    format!(
        "insert into run_labels (run_id, key, value) \
        select label.value ->> 0, label.value ->> 1, label.value ->> 2 from {} as label",
        dialect.each("$1")
    )
}

pub(super) fn update(dialect: Dialect) -> String {
    let stands = |name: &str| {
        format!(
            "case when change.value ->> 'stood' is not null \
                then cast(change.value ->> '{name}' as bigint) else {name} end"
        )
    };
    let (paused, queued) = (stands("paused_micros"), stands("queued_micros"));
    let definition = "change.value -> 'other' -> 'definition'";
    let rank = "cast(change.value -> 'other' ->> 'queue_rank' as bigint)";
    format!(
        "update runs set status = coalesce(change.value ->> 'status', status), \
            waits = coalesce(cast(change.value ->> 'waits' as bigint), waits), \
            input = coalesce(change.value -> 'other' ->> 'input', input), \
            definition_id = coalesce({definition} ->> 'id', definition_id), \
            definition_name = coalesce({definition} ->> 'name', definition_name), \
            definition_version = coalesce(cast({definition} ->> 'version' as bigint), \
                definition_version), \
            definition_hash = coalesce({definition} ->> 'hash', definition_hash), \
            queue = case when {rank} is null then queue \
                else coalesce({definition} ->> 'id', definition_id) \
                    || coalesce('/' || (change.value -> 'other' ->> 'key'), '') end, \
            queue_rank = coalesce({rank}, queue_rank), \
            output = coalesce(change.value ->> 'output', output), \
            error = coalesce(change.value ->> 'error', error), \
            error_message = coalesce(change.value ->> 'error_message', error_message), \
            sequence = cast(change.value ->> 'sequence' as bigint), \
            position = cast(change.value ->> 'position' as bigint), \
            ended_micros = coalesce(cast(change.value ->> 'ended_micros' as bigint), \
                ended_micros), \
            input_tokens = input_tokens + cast(change.value ->> 'input_tokens' as bigint), \
            output_tokens = output_tokens + cast(change.value ->> 'output_tokens' as bigint), \
            cost_micros = cost_micros + cast(change.value ->> 'cost_micros' as bigint), \
            paused_micros = {paused}, queued_micros = {queued}, \
            undo_cause = coalesce(change.value ->> 'undo_cause', undo_cause), \
            undo_total = coalesce(cast(change.value ->> 'undo_total' as bigint), undo_total), \
            undone = undone + cast(change.value ->> 'undone' as bigint), \
            undo_failed = undo_failed + cast(change.value ->> 'undo_failed' as bigint), \
            undo_failures = coalesce(change.value ->> 'undo_failures', undo_failures) \
        from {} as change where runs.id = change.value ->> 'id'",
        dialect.each("$1")
    )
}
