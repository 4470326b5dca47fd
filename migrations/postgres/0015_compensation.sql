-- Compensation: why a run undoes its work, and how far it is with it.
-- The columns are those of a SQLite store, in the same order.

alter table runs add column undo_cause text collate "C";
alter table runs add column undo_total bigint;
alter table runs add column undone bigint not null default 0;
alter table runs add column undo_failed bigint not null default 0;
alter table runs add column undo_failures text collate "C";
alter table wonder_next.runs add column undo_cause text collate "C";
alter table wonder_next.runs add column undo_total bigint;
alter table wonder_next.runs add column undone bigint not null default 0;
alter table wonder_next.runs add column undo_failed bigint not null default 0;
alter table wonder_next.runs add column undo_failures text collate "C";
