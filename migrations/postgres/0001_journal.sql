-- The journal's tables. They stand in the schema `wonder`, which the connection's search path
-- names; functions name it in full, so that they do the same whoever calls them. What is compared
-- or ordered is collated "C": by its bytes, on every machine alike.

-- The store itself: one row. Another epoch means another history, so cursors carry it.
create table store (
    id integer primary key check (id = 1),
    epoch bigint not null check (epoch between 0 and 4294967295),
    created_at timestamptz not null default now()
);

insert into store (id, epoch)
values (1, ('x' || left(gen_random_uuid()::text, 8))::bit(32)::bigint);

-- The newest position: one row. Whoever appends holds its lock to the commit, so that positions are
-- contiguous and in the order of commits, and what is checked under the lock stays true.
create table journal_head (
    id integer primary key check (id = 1),
    position bigint not null
) with (fillfactor = 50, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);

insert into journal_head (id, position) values (1, 0);

-- Every event of every aggregate. postgres-es writes and reads the same table: it gives no
-- position, and the trigger below does. `json` keeps the bytes as they are written; `jsonb` would
-- not.
create table events (
    position bigint primary key,
    event_id uuid not null default gen_random_uuid(),
    recorded_at timestamptz not null default now(),
    sequence bigint not null check (sequence > 0),
    aggregate_type text collate "C" not null,
    aggregate_id text collate "C" not null,
    event_type text not null,
    event_version text not null,
    workspace_id text not null default '',
    metadata json not null,
    payload json not null,
    constraint events_sequence unique (aggregate_type, aggregate_id, sequence)
);

-- Runs make nearly all events, and each has one writer. What others may write is found beside them
-- by position; the expression keeps the planner from walking the primary key over all runs' events.
create index events_beside_runs on events ((position + 0)) where aggregate_type <> 'run';

-- Answers of commands by key. The position is that of the last event of the command's append.
create table inbox (
    key text collate "C" primary key,
    fingerprint text not null,
    position bigint not null,
    kept_at timestamptz not null default now(),
    answer bytea not null
);

-- The oldest come first here, to be forgotten.
create index inbox_by_position on inbox (position);

-- Content-addressed values that events refer to.
create table payloads (
    hash text collate "C" primary key,
    bytes bytea not null
);

-- The newest snapshot of an aggregate. Derived: rows may be dropped at any time.
create table snapshots (
    aggregate_type text collate "C" not null,
    aggregate_id text collate "C" not null,
    sequence bigint not null,
    version bigint not null,
    state bytea not null,
    primary key (aggregate_type, aggregate_id)
) with (fillfactor = 70);

-- Aggregates that still owe work. Rows come and go with every run.
create table open_aggregates (
    aggregate_type text collate "C" not null,
    shard integer not null,
    aggregate_id text collate "C" not null,
    primary key (aggregate_type, shard, aggregate_id)
) with (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0.02);

-- Appends a batch in one statement: all of it that isn't refused, or nothing on an error.
--
-- Parallel arrays, one element for each append (a_), event (e_), answer (i_), payload (p_),
-- snapshot (s_), and change of the list of open aggregates (o_). Appends and events are numbered
-- from 1 in order; e_append, i_append and so on are numbers of appends, i_last is the number of the
-- append's last event. A part that is empty is null, and its statement is skipped. The caller sees
-- to it that no two appends of a batch have the same aggregate or the same key, so that all are
-- checked at once.
--
-- Answers a row with append = 0 and the position before the first event, and a row for each append
-- that was refused: `fenced`, `duplicate` with the answer that stands, or `conflict`.
--
-- The settings keep the plans on the indexes whatever is known of the tables' sizes: they are made
-- once in a session, perhaps when the tables are empty. The table of shards is that of 0002.
create function append_events(
    a_type text[],
    a_id text[],
    a_expected bigint[],
    a_workspace text[],
    a_metadata json[],
    a_recorded timestamptz[],
    a_shard integer[],
    a_epoch bigint[],
    e_append integer[],
    e_sequence bigint[],
    e_id uuid[],
    e_type text[],
    e_version text[],
    e_payload json[],
    i_append integer[],
    i_last integer[],
    i_key text[],
    i_fingerprint text[],
    i_answer bytea[],
    p_append integer[],
    p_hash text[],
    p_bytes bytea[],
    s_append integer[],
    s_sequence bigint[],
    s_version bigint[],
    s_state bytea[],
    o_append integer[],
    o_open boolean[]
) returns table (append integer, verdict text, "position" bigint, fingerprint text, answer bytea)
language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    total constant integer := cardinality(e_append);
    head bigint;
    refused integer[];
    reasons text[];
    duplicates integer[];
    -- For each append, the events of refused ones up to it. Null where nothing was refused.
    shifts integer[];
begin
    -- The lock. Each statement from here on sees all that was committed before the lock was had.
    update wonder.journal_head h set position = h.position + total
        where h.id = 1 returning h.position - total into strict head;

    select array_agg(c.append), array_agg(c.reason) into refused, reasons
    from (
        select a.append::integer as append, case
            when a.epoch is not null and a.epoch is distinct from
                (select s.epoch from wonder.shards s where s.shard = a.shard)
                then 'fenced'
            when a.expected <> coalesce((
                select e.sequence from wonder.events e
                where e.aggregate_type = a.type and e.aggregate_id = a.id
                order by e.sequence desc limit 1), 0)
                then 'conflict'
        end as reason
        from unnest(a_type, a_id, a_expected, a_shard, a_epoch)
            with ordinality as a (type, id, expected, shard, epoch, append)
    ) c
    where c.reason is not null;

    if i_key is not null then
        select array_agg(i.append) into duplicates
        from unnest(i_append, i_key) as i (append, key)
        where (select true from wonder.inbox b where b.key = i.key)
            and coalesce(reasons[array_position(refused, i.append)], '') <> 'fenced';
    end if;

    if refused is not null or duplicates is not null then
        return query
            select r.append, r.reason, null::bigint, null::text, null::bytea
            from unnest(refused, reasons) as r (append, reason)
            where r.append <> all (coalesce(duplicates, '{}'));
        if duplicates is not null then
            return query
                select distinct on (i.append)
                    i.append, 'duplicate', b.position, b.fingerprint, b.answer
                from unnest(i_append, i_key) with ordinality as i (append, key, number)
                join wonder.inbox b on b.key = i.key
                where i.append = any (duplicates)
                order by i.append, i.number;
        end if;
        refused := coalesce(refused, '{}') || coalesce(duplicates, '{}');
        select array_agg(c.shift order by c.append) into shifts
        from (
            select e.append, sum(count(*) filter (where e.append = any (refused)))
                over (order by e.append)::integer as shift
            from unnest(e_append) as e (append)
            group by e.append
        ) c;
        update wonder.journal_head h set position = h.position - shifts[cardinality(shifts)]
            where h.id = 1;
    else
        refused := '{}';
    end if;

    insert into wonder.events (
        position, event_id, recorded_at, sequence, aggregate_type, aggregate_id, event_type,
        event_version, workspace_id, metadata, payload)
    select
        head + e.number - coalesce(shifts[e.append], 0), e_id[e.number], a_recorded[e.append],
        e_sequence[e.number], a_type[e.append], a_id[e.append], e_type[e.number],
        e_version[e.number], a_workspace[e.append], a_metadata[e.append], e_payload[e.number]
    from unnest(e_append) with ordinality as e (append, number)
    where e.append <> all (refused);

    if i_key is not null then
        insert into wonder.inbox (key, fingerprint, position, answer)
        select i_key[i.number], i_fingerprint[i.number],
            head + i_last[i.number] - coalesce(shifts[i.append], 0), i_answer[i.number]
        from unnest(i_append) with ordinality as i (append, number)
        where i.append <> all (refused)
        on conflict do nothing;
    end if;

    if p_hash is not null then
        insert into wonder.payloads (hash, bytes)
        select p_hash[p.number], p_bytes[p.number]
        from unnest(p_append) with ordinality as p (append, number)
        where p.append <> all (refused)
        -- In the order in which everybody keeps values, so that nobody waits in a circle.
        order by p_hash[p.number] collate "C"
        on conflict do nothing;
    end if;

    if s_state is not null then
        insert into wonder.snapshots as kept (
            aggregate_type, aggregate_id, sequence, version, state)
        select a_type[s.append], a_id[s.append], s_sequence[s.number], s_version[s.number],
            s_state[s.number]
        from unnest(s_append) with ordinality as s (append, number)
        where s.append <> all (refused)
        on conflict (aggregate_type, aggregate_id) do update set
            sequence = excluded.sequence, version = excluded.version, state = excluded.state
        where excluded.sequence >= kept.sequence;
    end if;

    if o_open is not null then
        if true = any (o_open) then
            insert into wonder.open_aggregates (aggregate_type, shard, aggregate_id)
            select a_type[o.append], a_shard[o.append], a_id[o.append]
            from unnest(o_append, o_open) as o (append, open)
            where o.open and o.append <> all (refused)
            on conflict do nothing;
        end if;
        if false = any (o_open) then
            -- By the rows' places, each looked up by its key: as a join, the plan would depend on
            -- how large the table was when it was made. Nobody else changes it under the lock.
            delete from wonder.open_aggregates
            where ctid = any (array(
                select (
                    select x.ctid from wonder.open_aggregates x
                    where x.aggregate_type = a_type[o.append] and x.shard = a_shard[o.append]
                        and x.aggregate_id = a_id[o.append])
                from unnest(o_append, o_open) as o (append, open)
                where not o.open and o.append <> all (refused)));
        end if;
    end if;

    return query select 0, 'after', head, null::text, null::bytea;
end
$$;

-- Gives an event of postgres-es its position, and takes what it has no columns for out of its
-- metadata: `event_id`, `workspace_id` and `recorded_at`; and the answer of the command that made
-- it, `inbox_key`, `inbox_fingerprint` and `inbox_answer`, for the inbox. A key that is in the inbox
-- already is a unique violation, unless this transaction brought it: then the answer belongs to the
-- last of its events.
create function place_event() returns trigger
language plpgsql
as $$
declare
    own constant text[] := array['event_id', 'workspace_id', 'recorded_at', 'inbox_key',
        'inbox_fingerprint', 'inbox_answer'];
    given jsonb;
begin
    update wonder.journal_head h set position = h.position + 1
        where h.id = 1 returning h.position into strict new.position;

    select jsonb_object_agg(m.key, m.value #>> '{}') into given
    from json_each(new.metadata) m where m.key = any (own);
    if given is null then
        return new;
    end if;
    select '{' || coalesce(string_agg(
        to_json(m.key) || ':' || m.value, ',' order by m.key collate "C"), '') || '}'
    into new.metadata
    from json_each(new.metadata) m where m.key <> all (own);
    new.event_id := coalesce((given ->> 'event_id')::uuid, new.event_id);
    new.workspace_id := coalesce(given ->> 'workspace_id', new.workspace_id);
    new.recorded_at := coalesce((given ->> 'recorded_at')::timestamptz, new.recorded_at);

    if given ? 'inbox_key' then
        insert into wonder.inbox as kept (key, fingerprint, position, answer)
        values (given ->> 'inbox_key', coalesce(given ->> 'inbox_fingerprint', ''), new.position,
            convert_to(coalesce(given ->> 'inbox_answer', ''), 'UTF8'))
        on conflict (key) do update set position = excluded.position
        where kept.xmin = pg_current_xact_id()::xid;
        if not found then
            raise unique_violation using
                message = 'the command was done before',
                schema = 'wonder', table = 'inbox', constraint = 'inbox_pkey';
        end if;
    end if;
    return new;
end
$$;

create trigger place_event before insert on events
for each row when (new.position is null) execute function place_event();

-- Names of aggregates that were written after a position, without those of one type, at most 1,000.
create function written_elsewhere(after bigint, without_type text)
returns table ("position" bigint, aggregate_type text, aggregate_id text)
language plpgsql stable
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
begin
    if without_type = 'run' then
        return query
            select e.position, e.aggregate_type, e.aggregate_id from wonder.events e
            where e.position + 0 > after and e.aggregate_type <> 'run'
            order by e.position + 0 limit 1000;
    else
        return query
            select e.position, e.aggregate_type, e.aggregate_id from wonder.events e
            where e.position > after and e.aggregate_type <> without_type
            order by e.position limit 1000;
    end if;
end
$$;
