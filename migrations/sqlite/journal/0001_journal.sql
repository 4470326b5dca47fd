-- The store itself: one row. Another epoch means another history, so cursors carry it.
create table store (
    id integer primary key check (id = 1),
    epoch integer not null,
    schema integer not null,
    created_at integer not null
) strict;

-- Every event of every aggregate. Positions are given by the one writer: 1, 2, 3 and so on.
-- Times are microseconds since 1970. The widest columns come last.
create table events (
    position integer primary key,
    event_id blob not null,
    aggregate_type text not null,
    aggregate_id text not null,
    sequence integer not null,
    event_type text not null,
    event_version integer not null,
    workspace_id text not null,
    recorded_at integer not null,
    metadata blob not null,
    payload blob not null,
    unique (aggregate_type, aggregate_id, sequence)
) strict;

-- Answers of commands by key. Ids grow with time, so that the oldest are found without an index.
create table inbox (
    id integer primary key,
    key text not null unique,
    fingerprint text not null,
    position integer not null,
    kept_at integer not null,
    answer blob not null
) strict;

-- Content-addressed values that events refer to.
create table payloads (
    id integer primary key,
    hash text not null unique,
    bytes blob not null
) strict;

-- The newest snapshot of an aggregate. Derived: rows may be dropped at any time.
create table snapshots (
    aggregate_type text not null,
    aggregate_id text not null,
    sequence integer not null,
    version integer not null,
    state blob not null,
    primary key (aggregate_type, aggregate_id)
) strict;

-- Aggregates that still owe work.
create table open_aggregates (
    aggregate_type text not null,
    aggregate_id text not null,
    primary key (aggregate_type, aggregate_id)
) strict, without rowid;
