-- What a run has kept, as JSON, where content of it was dropped.
alter table runs add column archived text;
