-- The run that a run does again.
alter table runs add column rerun_of text collate "C";
alter table wonder_next.runs add column rerun_of text collate "C";
