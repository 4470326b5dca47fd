//! How rows of open runs are read and written, each for many at once.

use crate::store::dialect::Dialect;

pub(super) fn read_runs(dialect: Dialect) -> String {
    let each = dialect.each("$1");
    format!(
        "select found.run_id, found.facts from {each} as wanted \
         cross join metric_runs as found where found.run_id = wanted.value ->> 0"
    )
}

pub(super) fn read_tokens(dialect: Dialect) -> String {
    numbered(dialect, "metric_tokens", "token")
}

pub(super) fn read_spawns(dialect: Dialect) -> String {
    let each = dialect.each("$1");
    format!(
        "select found.* from {each} as wanted cross join metric_spawns as found \
         where found.run_id = wanted.value ->> 0 \
            and found.first <= cast(wanted.value ->> 2 as bigint) \
            and found.first + found.count > cast(wanted.value ->> 1 as bigint)"
    )
}

pub(super) fn read_groups(dialect: Dialect) -> String {
    numbered(dialect, "metric_groups", "instance")
}

fn numbered(dialect: Dialect, table: &str, number: &str) -> String {
    let each = dialect.each("$1");
    format!(
        "select found.* from {each} as wanted cross join {table} as found \
         where found.run_id = wanted.value ->> 0 \
            and found.{number} = cast(wanted.value ->> 1 as bigint)"
    )
}

pub(super) fn insert_runs(dialect: Dialect) -> String {
    format!(
        "insert into metric_runs (run_id, facts) \
         select change.value ->> 0, change.value ->> 1 from {} as change where true \
         on conflict (run_id) do update set facts = excluded.facts",
        dialect.each("$1")
    )
}

pub(super) fn insert_tokens(dialect: Dialect) -> String {
    format!(
        "insert into metric_tokens (run_id, token, node, since_micros, outcome) \
         select change.value ->> 0, cast(change.value ->> 1 as bigint), change.value ->> 2, \
            cast(change.value ->> 3 as bigint), change.value ->> 4 from {} as change where true \
         on conflict (run_id, token) do update set node = excluded.node, \
            since_micros = excluded.since_micros, outcome = excluded.outcome",
        dialect.each("$1")
    )
}

pub(super) fn insert_spawns(dialect: Dialect) -> String {
    format!(
        "insert into metric_spawns (run_id, first, count, node, since_micros) \
         select change.value ->> 0, cast(change.value ->> 1 as bigint), \
            cast(change.value ->> 2 as bigint), change.value ->> 3, \
            cast(change.value ->> 4 as bigint) from {} as change",
        dialect.each("$1")
    )
}

pub(super) fn insert_groups(dialect: Dialect) -> String {
    format!(
        "insert into metric_groups (run_id, instance, branches) \
         select change.value ->> 0, cast(change.value ->> 1 as bigint), change.value ->> 2 \
         from {} as change where true \
         on conflict (run_id, instance) do update set branches = excluded.branches",
        dialect.each("$1")
    )
}

pub(super) fn delete_numbered(dialect: Dialect, table: &str, number: &str) -> String {
    // With both casts SQLite looks for each row by both columns of the key.
    format!(
        "delete from {table} where (run_id, {number}) in \
            (select cast(gone.value ->> 0 as text), cast(gone.value ->> 1 as bigint) \
             from {} as gone)",
        dialect.each("$1")
    )
}

pub(super) fn delete_run(dialect: Dialect, table: &str) -> String {
    format!(
        "delete from {table} where run_id in (select gone.value ->> 0 from {} as gone)",
        dialect.each("$1")
    )
}
