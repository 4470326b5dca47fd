-- The columns are those of a SQLite store, in the same order.

-- Metrics over runs: what happened in each minute, hour and day, by series.
-- A series is a metric with the values of its dimensions; `series` is a hash of them.
create table metric_points (
    workspace_id text collate "C" not null,
    metric text collate "C" not null,
    -- Seconds of the bucket: 60, 3600 or 86400.
    step bigint not null,
    -- The second at which the bucket begins, since 1970.
    bucket bigint not null,
    series text collate "C" not null,
    project_id text collate "C" not null,
    workflow_id text collate "C" not null,
    definition text collate "C" not null,
    version text collate "C" not null,
    node text collate "C" not null,
    kind text collate "C" not null,
    model text collate "C" not null,
    status text collate "C" not null,
    -- Those of a metric that a definition emits, as a JSON object.
    dimensions text collate "C" not null,
    count bigint not null,
    -- Sum, least and most in millionths; the sum as a decimal text, since it outgrows 64 bits.
    sum text collate "C" not null,
    least bigint not null,
    most bigint not null,
    -- How many values are of which size, as a JSON array of bucket, count, bucket, count …
    sketch text collate "C" not null,
    primary key (workspace_id, metric, step, bucket, series)
) with (fillfactor = 70);

create index metric_points_by_age on metric_points (step, bucket);

-- How many series of a metric a day has: beyond the limit they become one.
create table metric_days (
    workspace_id text collate "C" not null,
    -- The second at which the day begins, since 1970.
    day bigint not null,
    metric text collate "C" not null,
    series bigint not null,
    -- The names of the dimensions of its own that the metric had, as a JSON array.
    dimensions text collate "C" not null,
    primary key (workspace_id, day, metric)
);

-- Of runs that haven't ended: what their metrics are kept by, as JSON.
create table metric_runs (
    run_id text collate "C" primary key,
    facts text collate "C" not null
);

-- Their tokens: the node of each, and since when it is there.
create table metric_tokens (
    run_id text collate "C" not null,
    token bigint not null,
    node text collate "C" not null,
    since_micros bigint not null,
    -- `succeeded` or `failed`, once its node has ended.
    outcome text collate "C" not null,
    primary key (run_id, token)
);

-- Their group instances: the nodes of the branches in order, as JSON.
create table metric_groups (
    run_id text collate "C" not null,
    instance bigint not null,
    branches text collate "C" not null,
    primary key (run_id, instance)
);

-- Where a rebuild makes its rows.
create table wonder_next.metric_points (like metric_points including all);
create table wonder_next.metric_days (like metric_days including all);
create table wonder_next.metric_runs (like metric_runs including all);
create table wonder_next.metric_tokens (like metric_tokens including all);
create table wonder_next.metric_groups (like metric_groups including all);
