-- Some of the snapshots that newer ones have replaced, so that a state long ago is a short fold.
-- Derived: rows may be dropped at any time.
create table older_snapshots (
    aggregate_type text collate "C" not null,
    aggregate_id text collate "C" not null,
    sequence bigint not null,
    version bigint not null,
    state bytea not null,
    primary key (aggregate_type, aggregate_id, sequence)
);

-- The last one of each 2,048 events, and beyond 131,072 of each 16,384: at most 118 for a million
-- events. Large ones are left out: they would take more room than the events.
create function keep_older_snapshot() returns trigger
language plpgsql
as $$
begin
    insert into wonder.older_snapshots (aggregate_type, aggregate_id, sequence, version, state)
    values (old.aggregate_type, old.aggregate_id, old.sequence, old.version, old.state)
    on conflict (aggregate_type, aggregate_id, sequence) do update set
        version = excluded.version, state = excluded.state;
    return null;
end
$$;

create trigger keep_older_snapshot after update on snapshots
for each row when (
    old.sequence / case when old.sequence < 131072 then 2048 else 16384 end
        < new.sequence / case when old.sequence < 131072 then 2048 else 16384 end
    and length(old.state) <= 1048576)
execute function keep_older_snapshot();

-- Stretches of time in which a run did something else than work on tasks: what it waited for, or that
-- it stood still. Outside of them a run that has not ended is `running`, on tasks.
create table run_stretches (
    run_id text collate "C" not null,
    from_micros bigint not null,
    to_micros bigint,
    status text collate "C" not null,
    -- What it waited for: a bit for each kind.
    waits bigint not null,
    primary key (run_id, from_micros)
);
create table wonder_next.run_stretches (like run_stretches including all);

-- The same of now; 0 of a run that has ended.
alter table runs add column waits bigint not null default 1;
alter table wonder_next.runs add column waits bigint not null default 1;
