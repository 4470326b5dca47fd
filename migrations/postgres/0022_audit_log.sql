-- Who did what: one row for each event that records an act of somebody, under its position.
-- The columns are those of a SQLite store, in the same order.
create table audit_log (
    -- The position in 19 digits.
    id text collate "C" primary key,
    workspace_id text collate "C" not null,
    at_micros bigint not null,
    event_id text collate "C" not null,
    actor text collate "C" not null,
    action text collate "C" not null,
    -- `done` or `failed`.
    result text collate "C" not null,
    resource_type text collate "C" not null,
    resource_id text collate "C" not null,
    run_id text collate "C",
    -- From where, as JSON.
    origin text collate "C",
    command_id text collate "C",
    trace_id text collate "C",
    -- What is another than before, as JSON, and how many places more there are.
    changes text collate "C",
    changes_left_out bigint not null,
    -- As JSON.
    details text collate "C"
);

create index audit_log_by_time on audit_log (workspace_id, at_micros desc, id desc);
create index audit_log_by_actor on audit_log (workspace_id, actor, at_micros desc, id desc);
create index audit_log_by_action on audit_log (workspace_id, action, at_micros desc, id desc);
create index audit_log_by_resource on audit_log (resource_id, at_micros desc, id desc);
create index audit_log_by_run on audit_log (run_id, at_micros desc, id desc)
    where run_id is not null;

create table wonder_next.audit_log (like audit_log including all);
