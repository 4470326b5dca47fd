-- Forks: events that happened to another run before, and the run that a run was forked from.

-- As in 0001, but for `a_recorded`: a time for each append, or one for each event. Where there are as
-- many of the one as of the other, both mean the same.
create or replace function append_events(
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
        head + e.number - coalesce(shifts[e.append], 0), e_id[e.number], case when cardinality(a_recorded) = cardinality(a_type)
            then a_recorded[e.append] else a_recorded[e.number] end,
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

alter table runs add column forked_from text collate "C";
alter table wonder_next.runs add column forked_from text collate "C";
