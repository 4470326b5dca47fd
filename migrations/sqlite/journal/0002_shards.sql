-- Open aggregates are listed by shard. Rows from before are listed under shard 0.
alter table open_aggregates add column shard integer not null default 0;

create index open_aggregates_by_shard on open_aggregates (aggregate_type, shard, aggregate_id);
