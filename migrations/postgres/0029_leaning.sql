-- The aggregate that an open one leans on, whichever shard that has: one that ends needs its own
-- history no more, and goes from here with that.
alter table open_aggregates add column leans_on text collate "C";

create index open_aggregates_leaning on open_aggregates (leans_on, aggregate_type, aggregate_id)
where leans_on is not null;

-- Forks that go on, and forks that are held. As text: members are sorted by their names, so what
-- users gave comes after `input`, and texts of theirs may be such as a json isn't taken apart with.
update open_aggregates o set leans_on = substring(
    split_part(e.payload::text, '"input":', 1)
    from '"forked_from":\{[^{}]*"run_id":"(run_[a-z0-9]+)"')
from events e
where o.aggregate_type in ('run', 'hold')
    and e.aggregate_type = 'run' and e.aggregate_id = o.aggregate_id and e.sequence = 1;
