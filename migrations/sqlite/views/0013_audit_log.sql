-- Who did what: one row for each event that records an act of somebody, under its position.
create table audit_log (
    -- The position in 19 digits.
    id text not null primary key,
    workspace_id text not null,
    at_micros integer not null,
    event_id text not null,
    actor text not null,
    action text not null,
    -- `done` or `failed`.
    result text not null,
    resource_type text not null,
    resource_id text not null,
    run_id text,
    -- From where, as JSON.
    origin text,
    command_id text,
    trace_id text,
    -- What is another than before, as JSON, and how many places more there are.
    changes text,
    changes_left_out integer not null,
    -- As JSON.
    details text
) strict, without rowid;

create index audit_log_by_time on audit_log (workspace_id, at_micros desc, id desc);
create index audit_log_by_actor on audit_log (workspace_id, actor, at_micros desc, id desc);
create index audit_log_by_action on audit_log (workspace_id, action, at_micros desc, id desc);
create index audit_log_by_resource on audit_log (resource_id, at_micros desc, id desc);
create index audit_log_by_run on audit_log (run_id, at_micros desc, id desc)
    where run_id is not null;
