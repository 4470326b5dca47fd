-- Child runs: which run started a run, and the one at the top.

alter table runs add column parent_run_id text;
alter table runs add column root_run_id text;

create index runs_by_parent on runs (parent_run_id, started_micros desc, id desc)
    where parent_run_id is not null;
