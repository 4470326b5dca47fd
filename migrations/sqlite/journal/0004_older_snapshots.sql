-- Some of the snapshots that newer ones have replaced, so that a state long ago is a short fold.
-- Derived: rows may be dropped at any time.
create table older_snapshots (
    aggregate_type text not null,
    aggregate_id text not null,
    sequence integer not null,
    version integer not null,
    state blob not null,
    primary key (aggregate_type, aggregate_id, sequence)
) strict;

-- The last one of each 2,048 events, and beyond 131,072 of each 16,384: at most 118 for a million
-- events. Large ones are left out: they would take more room than the events.
create trigger keep_older_snapshot after update on snapshots
when old.sequence / case when old.sequence < 131072 then 2048 else 16384 end
    < new.sequence / case when old.sequence < 131072 then 2048 else 16384 end
    and length(old.state) <= 1048576
begin
    insert or replace into older_snapshots (aggregate_type, aggregate_id, sequence, version, state)
    values (old.aggregate_type, old.aggregate_id, old.sequence, old.version, old.state);
end;
