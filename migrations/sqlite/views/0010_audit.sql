-- The audit chain in blocks of 256 positions: the last one that a block has, and the chain there.
-- `marks` has 8 characters for each event of the block, which say where the chain parts from what
-- was sealed.
create table seals (
    -- The number of the block in 16 digits.
    block text not null primary key,
    position integer not null,
    hash text not null,
    marks text not null
) strict, without rowid;

-- Heads of the chain that were signed. Not folded from the journal: never made again.
create table signed_heads (
    position integer not null primary key,
    hash text not null,
    signed_at text not null,
    key_id text not null,
    signature text not null
) strict;
