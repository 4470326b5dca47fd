-- Names that mean something until a time. Rows whose time is over are forgotten.
create table marks (
    shard integer not null,
    name text collate "C" not null,
    until timestamptz not null,
    primary key (shard, name)
) with (fillfactor = 70, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0.02);

create index marks_by_time on marks (until);

-- `append_events` for a batch with marks (m_): the same, and the marks of what it doesn't refuse. Of
-- two marks of one name the later time stands.
create function append_marked_events(
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
    o_open boolean[],
    m_append integer[],
    m_name text[],
    m_until timestamptz[]
) returns table (append integer, verdict text, "position" bigint, fingerprint text, answer bytea)
language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    done record;
    refused integer[] := '{}';
begin
    for done in
        select * from wonder.append_events(
            a_type, a_id, a_expected, a_workspace, a_metadata, a_recorded, a_shard, a_epoch,
            e_append, e_sequence, e_id, e_type, e_version, e_payload, i_append, i_last, i_key,
            i_fingerprint, i_answer, p_append, p_hash, p_bytes, s_append, s_sequence, s_version,
            s_state, o_append, o_open)
    loop
        if done.append > 0 then
            refused := refused || done.append;
        end if;
        append := done.append;
        verdict := done.verdict;
        "position" := done.position;
        fingerprint := done.fingerprint;
        answer := done.answer;
        return next;
    end loop;

    insert into wonder.marks as kept (shard, name, until)
    select a_shard[m.append], m.name, max(m.until)
    from unnest(m_append, m_name, m_until) as m (append, name, until)
    where m.append <> all (refused)
    group by a_shard[m.append], m.name
    on conflict (shard, name) do update set until = excluded.until
    where excluded.until > kept.until;
end
$$;
