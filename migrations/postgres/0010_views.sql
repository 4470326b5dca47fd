-- The read tables. All of them are folds of the journal: their rows may be deleted at any time.
-- They have the columns, in the same order, that the tables of a SQLite store have.

-- How far each projection is. Moved in the transaction that writes its rows.
create table checkpoints (
    projection text collate "C" primary key,
    -- The version of the fold that wrote the rows; a newer one starts over.
    version bigint not null,
    -- The journal's random number: another one means another history.
    epoch bigint not null,
    position bigint not null
) with (fillfactor = 50, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);

create table resources (
    kind text collate "C" not null,
    id text collate "C" not null,
    workspace_id text collate "C" not null,
    project_id text collate "C",
    name text collate "C" not null,
    version bigint not null,
    archived bigint not null,
    created_micros bigint not null,
    updated_micros bigint not null,
    spec text collate "C" not null,
    primary key (kind, id)
);

create index resources_by_workspace
    on resources (workspace_id, kind, created_micros desc, id desc);
create index resources_by_kind on resources (kind, created_micros desc, id desc);

-- A run's row changes with each batch that has events of it: room in its page saves index entries.
create table runs (
    id text collate "C" primary key,
    workspace_id text collate "C" not null,
    project_id text collate "C" not null,
    workflow_id text collate "C",
    status text collate "C" not null,
    definition_id text collate "C" not null,
    definition_name text collate "C" not null,
    definition_version bigint not null,
    definition_hash text collate "C" not null,
    -- Values as the journal stores them: references stay references.
    input text collate "C" not null,
    output text collate "C",
    error text collate "C",
    error_message text collate "C",
    labels text collate "C" not null,
    sequence bigint not null,
    position bigint not null,
    started_micros bigint not null,
    ended_micros bigint,
    input_tokens bigint not null,
    output_tokens bigint not null,
    cost_micros bigint not null
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);

create index runs_by_start on runs (workspace_id, started_micros desc, id desc);
create index runs_by_status on runs (workspace_id, status, started_micros desc, id desc);

create table run_labels (
    run_id text collate "C" not null,
    key text collate "C" not null,
    value text collate "C" not null,
    primary key (run_id, key)
);

create index run_labels_by_value on run_labels (key, value, run_id);

-- Where a rebuild makes the rows anew, beside the live ones.
create schema wonder_next;

create table wonder_next.checkpoints (like checkpoints including all);
create table wonder_next.resources (like resources including all);
create table wonder_next.runs (like runs including all);
create table wonder_next.run_labels (like run_labels including all);
