-- Stretches of time in which a run did something else than work on tasks: what it waited for, or that
-- it stood still. Outside of them a run that has not ended is `running`, on tasks.

create table run_stretches (
    run_id text not null,
    from_micros integer not null,
    to_micros integer,
    status text not null,
    -- What it waited for: a bit for each kind.
    waits integer not null,
    primary key (run_id, from_micros)
) strict, without rowid;

-- The same of now; 0 of a run that has ended.
alter table runs add column waits integer not null default 1;
