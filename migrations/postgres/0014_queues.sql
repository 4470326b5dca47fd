-- Queues of runs: which one a run is counted in, its place there, and since when it waits.
-- The columns are those of a SQLite store, in the same order.

alter table runs add column queue text collate "C";
alter table runs add column queue_rank bigint;
alter table runs add column queued_micros bigint;
alter table wonder_next.runs add column queue text collate "C";
alter table wonder_next.runs add column queue_rank bigint;
alter table wonder_next.runs add column queued_micros bigint;

create index runs_in_queue on runs (queue, queue_rank, id) where queued_micros is not null;
