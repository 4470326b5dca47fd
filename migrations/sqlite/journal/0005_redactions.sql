-- The SHA-256 of an event's payload as it was written, 32 bytes, where another one stands there
-- now.
alter table events add column payload_sha256 blob;

-- Values that events have referred to whose payload was replaced, and since when. One that is
-- written again is referred to again; one that no event refers to may go.
create table released_payloads (
    hash text primary key,
    since integer not null
) strict, without rowid;

create trigger payload_is_referred_to before insert on payloads
begin
    delete from released_payloads where hash = new.hash;
end;
