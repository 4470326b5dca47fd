-- Gates: what people are asked, and what they answered. And when a run was paused, while it is.

alter table runs add column paused_micros integer;

create table gates (
    id text not null primary key,
    workspace_id text not null,
    run_id text not null,
    token integer not null,
    node text not null,
    project_id text not null,
    workflow_id text,
    definition_name text not null,
    title text not null,
    status text not null,
    outcome text,
    -- Values as the journal stores them: references stay references.
    form text,
    assignees text not null,
    roles text not null,
    approvals integer not null,
    rejections integer not null,
    not_by text,
    deadline_micros integer,
    answers text not null,
    opened_micros integer not null,
    closed_micros integer
) strict;

create index gates_by_opening on gates (workspace_id, opened_micros desc, id desc);
create index gates_by_status on gates (workspace_id, status, opened_micros desc, id desc);
create index gates_by_run on gates (run_id, status);

create table gate_people (
    gate_id text not null,
    -- `assignee` or `role`.
    kind text not null,
    name text not null,
    primary key (gate_id, kind, name)
) strict, without rowid;

create index gate_people_by_name on gate_people (kind, name, gate_id);
