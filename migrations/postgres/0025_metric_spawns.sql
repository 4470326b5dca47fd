-- Branches that were spawned together, one row for many tokens. What a token comes to after its node
-- has ended stands in a row of its own (`metric_tokens`).
create table metric_spawns (
    run_id text collate "C" not null,
    first bigint not null,
    count bigint not null,
    node text collate "C" not null,
    since_micros bigint not null,
    primary key (run_id, first)
);

-- Where a rebuild makes its rows.
create table wonder_next.metric_spawns (like metric_spawns including all);
