-- The aggregate that an open one leans on, whichever shard that has: one that ends needs its own
-- history no more, and goes from here with that.
alter table open_aggregates add column leans_on text;

create index open_aggregates_leaning on open_aggregates (leans_on, aggregate_type, aggregate_id)
where leans_on is not null;

-- Forks that go on, and forks that are held.
update open_aggregates set leans_on = (
    select case when json_valid(cast(payload as text))
        then json_extract(cast(payload as text), '$.forked_from.run_id') end
    from events
    where events.aggregate_type = 'run' and events.aggregate_id = open_aggregates.aggregate_id
        and events.sequence = 1)
where aggregate_type in ('run', 'hold');
