-- Compensation: why a run undoes its work, and how far it is with it.

alter table runs add column undo_cause text;
alter table runs add column undo_total integer;
alter table runs add column undone integer not null default 0;
alter table runs add column undo_failed integer not null default 0;
alter table runs add column undo_failures text;
