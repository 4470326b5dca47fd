-- Retention: payloads that are replaced, and what runs keep of theirs.

-- The SHA-256 of an event's payload as it was written, where another one stands there now.
-- postgres-es neither writes nor reads it.
alter table events add column payload_sha256 bytea check (length(payload_sha256) = 32);

-- Values that events have referred to whose payload was replaced, and since when. One that is
-- written again is referred to again; one that no event refers to may go.
create table released_payloads (
    hash text collate "C" primary key,
    since timestamptz not null
);

-- Whoever writes events brings what they refer to.
create function refer_to_payload() returns trigger
language plpgsql
as $$
begin
    delete from wonder.released_payloads where hash = new.hash;
    return new;
end
$$;

create trigger payload_is_referred_to before insert on payloads
for each row execute function refer_to_payload();

-- Replaces the payloads of events that are there. What stood there first stays known by its hash,
-- and snapshots of the aggregates, which hold it too, are gone. Values that are let go are noted;
-- of those that were, some are found to be referred to, and others are dropped unless they have
-- come again. Called in the transaction that appends what records it, after the append.
create function redact_events(
    r_type text[],
    r_id text[],
    r_sequence bigint[],
    r_payload json[],
    released text[],
    released_at timestamptz,
    referred text[],
    dropped text[]
) returns void
language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
begin
    update wonder.events e set
        payload_sha256 = coalesce(e.payload_sha256, sha256(convert_to(e.payload::text, 'UTF8'))),
        payload = r.payload
    from unnest(r_type, r_id, r_sequence, r_payload) as r (type, id, sequence, payload)
    where e.aggregate_type = r.type and e.aggregate_id = r.id and e.sequence = r.sequence;

    delete from wonder.snapshots s using (
        select distinct r.type, r.id from unnest(r_type, r_id) as r (type, id)) r
    where s.aggregate_type = r.type and s.aggregate_id = r.id;
    delete from wonder.older_snapshots s using (
        select distinct r.type, r.id from unnest(r_type, r_id) as r (type, id)) r
    where s.aggregate_type = r.type and s.aggregate_id = r.id;

    insert into wonder.released_payloads (hash, since)
        select distinct r.hash, released_at from unnest(released) as r (hash)
        on conflict do nothing;
    delete from wonder.released_payloads where hash = any (referred);
    with gone as (
        delete from wonder.released_payloads where hash = any (dropped) returning hash)
    delete from wonder.payloads p using gone where p.hash = gone.hash;
end
$$;

-- What a run has kept, as JSON, where content of it was dropped.
alter table runs add column archived text collate "C";
alter table wonder_next.runs add column archived text collate "C";
