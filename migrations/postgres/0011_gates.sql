-- Gates: what people are asked, and what they answered. And when a run was paused, while it is.
-- The columns are those of a SQLite store, in the same order.

alter table runs add column paused_micros bigint;
alter table wonder_next.runs add column paused_micros bigint;

create table gates (
    id text collate "C" primary key,
    workspace_id text collate "C" not null,
    run_id text collate "C" not null,
    token bigint not null,
    node text collate "C" not null,
    project_id text collate "C" not null,
    workflow_id text collate "C",
    definition_name text collate "C" not null,
    title text collate "C" not null,
    status text collate "C" not null,
    outcome text collate "C",
    -- Values as the journal stores them: references stay references.
    form text collate "C",
    assignees text collate "C" not null,
    roles text collate "C" not null,
    approvals bigint not null,
    rejections bigint not null,
    not_by text collate "C",
    deadline_micros bigint,
    answers text collate "C" not null,
    opened_micros bigint not null,
    closed_micros bigint
);

create index gates_by_opening on gates (workspace_id, opened_micros desc, id desc);
create index gates_by_status on gates (workspace_id, status, opened_micros desc, id desc);
create index gates_by_run on gates (run_id, status);

create table gate_people (
    gate_id text collate "C" not null,
    -- `assignee` or `role`.
    kind text collate "C" not null,
    name text collate "C" not null,
    primary key (gate_id, kind, name)
);

create index gate_people_by_name on gate_people (kind, name, gate_id);

create table wonder_next.gates (like gates including all);
create table wonder_next.gate_people (like gate_people including all);
