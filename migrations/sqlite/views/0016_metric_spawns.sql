-- Branches that were spawned together, one row for many tokens. What a token comes to after its node
-- has ended stands in a row of its own (`metric_tokens`).
create table metric_spawns (
    run_id text not null,
    first integer not null,
    count integer not null,
    node text not null,
    since_micros integer not null,
    primary key (run_id, first)
) strict, without rowid;
