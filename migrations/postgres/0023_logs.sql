-- The log store: what processes warned of. Not a fold of the journal: it isn't rebuilt, and has no
-- table in wonder_next. The columns are those of a SQLite store, in the same order.
create table logs (
    -- 32 hexadecimal digits.
    id text collate "C" primary key,
    at_micros bigint not null,
    -- 0 trace, 1 debug, 2 info, 3 warn, 4 error.
    level bigint not null,
    role text collate "C" not null,
    instance text collate "C" not null,
    target text collate "C" not null,
    message text collate "C" not null,
    workspace_id text collate "C",
    run_id text collate "C",
    trace_id text collate "C",
    -- As JSON.
    fields text collate "C"
);

create index logs_by_time on logs (at_micros desc, id desc);
create index logs_by_run on logs (run_id, at_micros desc, id desc) where run_id is not null;
create index logs_by_trace on logs (trace_id, at_micros desc, id desc) where trace_id is not null;

create index audit_log_by_trace on audit_log (trace_id) where trace_id is not null;
create index audit_log_by_trace on wonder_next.audit_log (trace_id) where trace_id is not null;
