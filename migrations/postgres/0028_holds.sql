-- The hold that is on a run, as JSON.
alter table runs add column held text collate "C";
alter table wonder_next.runs add column held text collate "C";
