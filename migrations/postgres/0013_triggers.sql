-- Triggers: what has come of them. And which trigger started a run, as JSON.
-- The columns are those of a SQLite store, in the same order.

alter table runs add column started_by_trigger text collate "C";
alter table wonder_next.runs add column started_by_trigger text collate "C";

create table triggers (
    id text collate "C" primary key,
    workspace_id text collate "C" not null,
    workflow_id text collate "C" not null,
    name text collate "C" not null,
    runs bigint not null,
    last_micros bigint,
    last_run_id text collate "C",
    failures bigint not null,
    -- The last failure, as JSON.
    last_error text collate "C",
    -- The first and the last of the latest missed times, as JSON.
    last_missed text collate "C"
);

create index triggers_by_workflow on triggers (workflow_id, name);

create table wonder_next.triggers (like triggers including all);
