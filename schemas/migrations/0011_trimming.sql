-- The stream is trimmed behind the replicas that the operator named, and never before the floor is
-- written down here: a database that knows of a floor above its own position knows that commands
-- which it lacks are gone.

-- Messages below this sequence may be gone from the stream; null while nothing was trimmed.
ALTER TABLE farwrite.streams ADD COLUMN trim_floor bigint;
