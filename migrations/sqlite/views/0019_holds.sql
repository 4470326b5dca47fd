-- The hold that is on a run, as JSON.
alter table runs add column held text;
