-- Queues of runs: which one a run is counted in, its place there, and since when it waits.

alter table runs add column queue text;
alter table runs add column queue_rank integer;
alter table runs add column queued_micros integer;

create index runs_in_queue on runs (queue, queue_rank, id) where queued_micros is not null;
