-- Who owns which shard: leases, judged by this database's clock alone.

-- Epochs grow under the lock of the journal's head, and never shrink: an append that holds the lock
-- and finds the epoch that its writer knows is the writer's to make.
create table shards (
    shard integer primary key,
    epoch bigint not null default 0,
    owner uuid,
    expires_at timestamptz
) with (fillfactor = 50, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);

-- Processes that share the shards out among them.
create table owners (
    member uuid primary key,
    name text not null,
    expires_at timestamptz not null
) with (fillfactor = 50, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);

-- One round of a member: renews its membership and the leases that it holds (shards and epochs,
-- parallel arrays), and takes of the free ones what it lacks to its fair share. A lease of its own
-- that it doesn't name is free to it as well, under a new epoch. Answers what it owns now, and
-- beside each how many shards are its share and whether it was taken from an owner that is late.
--
-- Renewing must not wait: the head is locked only where there is something to take, and given up
-- after a while. Rows that somebody else is changing are left alone, so that nobody waits in a
-- circle.
create function keep_shards(
    own uuid,
    own_name text,
    ttl interval,
    held integer[],
    held_epochs bigint[]
) returns table (shard integer, epoch bigint, share integer, late boolean)
language plpgsql
set lock_timeout = '1s'
as $$
#variable_conflict use_column
declare
    renewed integer[];
    fair integer;
    taken integer[] := '{}';
    overtaken integer[] := '{}';
begin
    insert into wonder.owners as o (member, name, expires_at) values (own, own_name, now() + ttl)
        on conflict (member) do update set expires_at = excluded.expires_at;
    delete from wonder.owners where member in (
        select o.member from wonder.owners o where o.expires_at < now() - interval '1 hour'
        for update skip locked);

    with done as (
        update wonder.shards s set expires_at = now() + ttl
        from unnest(held, held_epochs) as h (shard, epoch)
        where s.shard = h.shard and s.epoch = h.epoch and s.owner = own and s.expires_at > now()
        returning s.shard
    )
    select coalesce(array_agg(d.shard), '{}') into renewed from done d;

    select ceil((select count(*) from wonder.shards)::numeric / count(*)) into fair
    from wonder.owners o where o.expires_at > now();

    if cardinality(renewed) < fair and exists (
        select from wonder.shards s
        where s.owner is null or s.expires_at <= now()
            or (s.owner = own and s.shard <> all (renewed)))
    then
        begin
            perform from wonder.journal_head h where h.id = 1 for update;
            with free as (
                select s.shard, s.owner <> own as late from wonder.shards s
                where s.owner is null or s.expires_at <= now()
                    or (s.owner = own and s.shard <> all (renewed))
                order by s.shard limit fair - cardinality(renewed)
                for update skip locked
            ), done as (
                update wonder.shards s
                set epoch = s.epoch + 1, owner = own, expires_at = now() + ttl
                from free f where s.shard = f.shard
                returning s.shard, f.late
            )
            select coalesce(array_agg(d.shard), '{}'),
                coalesce(array_agg(d.shard) filter (where d.late), '{}')
            into taken, overtaken from done d;
        exception when lock_not_available then
            -- The head is busy: the next round tries again.
            null;
        end;
    end if;

    return query
        select s.shard, s.epoch, fair, s.shard = any (overtaken) from wonder.shards s
        where s.shard = any (renewed || taken) order by s.shard;
end
$$;
