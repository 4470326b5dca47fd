-- Child runs: which run started a run, and the one at the top.
-- The columns are those of a SQLite store, in the same order.

alter table runs add column parent_run_id text collate "C";
alter table runs add column root_run_id text collate "C";
alter table wonder_next.runs add column parent_run_id text collate "C";
alter table wonder_next.runs add column root_run_id text collate "C";

create index runs_by_parent on runs (parent_run_id, started_micros desc, id desc)
    where parent_run_id is not null;
