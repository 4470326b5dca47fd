-- The SHA-256 of an event's payload as it was written, 32 bytes, where another one stands there now.
alter table events add column payload_sha256 blob;
