-- The audit chain in blocks of 256 positions: the last one that a block has, and the chain there.
-- `marks` has 8 characters for each event of the block, which say where the chain parts from what
-- was sealed. The columns are those of a SQLite store, in the same order.
create table seals (
    -- The number of the block in 16 digits.
    block text collate "C" primary key,
    position bigint not null,
    hash text collate "C" not null,
    marks text collate "C" not null
) with (fillfactor = 50);

create table wonder_next.seals (like seals including all);

-- Heads of the chain that were signed. Not folded from the journal: never made again.
create table signed_heads (
    position bigint primary key,
    hash text collate "C" not null,
    signed_at text collate "C" not null,
    key_id text collate "C" not null,
    signature text collate "C" not null
);
