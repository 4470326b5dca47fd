-- The run that a run was forked from, and the last event that both have, as JSON.
alter table runs add column forked_from text;
