-- Names that mean something until a time, in microseconds since 1970. Rows whose time is over are
-- forgotten.
create table marks (
    shard integer not null,
    name text not null,
    until integer not null,
    primary key (shard, name)
) strict, without rowid;

create index marks_by_time on marks (until);
