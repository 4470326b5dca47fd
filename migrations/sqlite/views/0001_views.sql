-- The read tables. All of them are folds of the journal: this file may be deleted at any time.

-- How far each projection is. Moved in the transaction that writes its rows.
create table checkpoints (
    projection text not null primary key,
    -- The version of the fold that wrote the rows; another one starts over.
    version integer not null,
    -- The journal's random number: another one means another history.
    epoch integer not null,
    position integer not null
) strict, without rowid;

create table resources (
    kind text not null,
    id text not null,
    workspace_id text not null,
    project_id text,
    name text not null,
    version integer not null,
    archived integer not null,
    created_micros integer not null,
    updated_micros integer not null,
    spec text not null,
    primary key (kind, id)
) strict, without rowid;

create index resources_by_workspace on resources (workspace_id, kind, created_micros desc, id desc);
create index resources_by_kind on resources (kind, created_micros desc, id desc);

create table runs (
    id text not null primary key,
    workspace_id text not null,
    project_id text not null,
    workflow_id text,
    status text not null,
    definition_id text not null,
    definition_name text not null,
    definition_version integer not null,
    definition_hash text not null,
    -- Values as the journal stores them: references stay references.
    input text not null,
    output text,
    error text,
    error_message text,
    labels text not null,
    sequence integer not null,
    position integer not null,
    started_micros integer not null,
    ended_micros integer,
    input_tokens integer not null,
    output_tokens integer not null,
    cost_micros integer not null
) strict;

create index runs_by_start on runs (workspace_id, started_micros desc, id desc);
create index runs_by_status on runs (workspace_id, status, started_micros desc, id desc);

create table run_labels (
    run_id text not null,
    key text not null,
    value text not null,
    primary key (run_id, key)
) strict, without rowid;

create index run_labels_by_value on run_labels (key, value, run_id);
