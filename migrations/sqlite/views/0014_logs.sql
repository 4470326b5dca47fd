-- The log store: what processes warned of. Not a fold of the journal: it isn't rebuilt.
create table logs (
    -- 32 hexadecimal digits.
    id text not null primary key,
    at_micros integer not null,
    -- 0 trace, 1 debug, 2 info, 3 warn, 4 error.
    level integer not null,
    role text not null,
    instance text not null,
    target text not null,
    message text not null,
    workspace_id text,
    run_id text,
    trace_id text,
    -- As JSON.
    fields text
) strict, without rowid;

create index logs_by_time on logs (at_micros desc, id desc);
create index logs_by_run on logs (run_id, at_micros desc, id desc) where run_id is not null;
create index logs_by_trace on logs (trace_id, at_micros desc, id desc) where trace_id is not null;

create index audit_log_by_trace on audit_log (trace_id) where trace_id is not null;
