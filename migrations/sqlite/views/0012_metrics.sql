-- Metrics over runs: what happened in each minute, hour and day, by series.
-- A series is a metric with the values of its dimensions; `series` is a hash of them.
create table metric_points (
    workspace_id text not null,
    metric text not null,
    -- Seconds of the bucket: 60, 3600 or 86400.
    step integer not null,
    -- The second at which the bucket begins, since 1970.
    bucket integer not null,
    series text not null,
    project_id text not null,
    workflow_id text not null,
    definition text not null,
    version text not null,
    node text not null,
    kind text not null,
    model text not null,
    status text not null,
    -- Those of a metric that a definition emits, as a JSON object.
    dimensions text not null,
    count integer not null,
    -- Sum, least and most in millionths; the sum as a decimal text, since it outgrows 64 bits.
    sum text not null,
    least integer not null,
    most integer not null,
    -- How many values are of which size, as a JSON array of bucket, count, bucket, count …
    sketch text not null,
    primary key (workspace_id, metric, step, bucket, series)
) strict, without rowid;

create index metric_points_by_age on metric_points (step, bucket);

-- How many series of a metric a day has: beyond the limit they become one.
create table metric_days (
    workspace_id text not null,
    -- The second at which the day begins, since 1970.
    day integer not null,
    metric text not null,
    series integer not null,
    -- The names of the dimensions of its own that the metric had, as a JSON array.
    dimensions text not null,
    primary key (workspace_id, day, metric)
) strict, without rowid;

-- Of runs that haven't ended: what their metrics are kept by, as JSON.
create table metric_runs (
    run_id text not null primary key,
    facts text not null
) strict, without rowid;

-- Their tokens: the node of each, and since when it is there.
create table metric_tokens (
    run_id text not null,
    token integer not null,
    node text not null,
    since_micros integer not null,
    -- `succeeded` or `failed`, once its node has ended.
    outcome text not null,
    primary key (run_id, token)
) strict, without rowid;

-- Their group instances: the nodes of the branches in order, as JSON.
create table metric_groups (
    run_id text not null,
    instance integer not null,
    branches text not null,
    primary key (run_id, instance)
) strict, without rowid;
