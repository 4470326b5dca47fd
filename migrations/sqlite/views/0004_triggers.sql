-- Triggers: what has come of them. And which trigger started a run, as JSON.

alter table runs add column started_by_trigger text;

create table triggers (
    id text not null primary key,
    workspace_id text not null,
    workflow_id text not null,
    name text not null,
    runs integer not null,
    last_micros integer,
    last_run_id text,
    failures integer not null,
    -- The last failure, as JSON.
    last_error text,
    -- The first and the last of the latest missed times, as JSON.
    last_missed text
) strict;

create index triggers_by_workflow on triggers (workflow_id, name);
