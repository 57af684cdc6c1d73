-- The truth about what was applied: who may apply (owner, epoch), how far each lane has come
-- (lanes), how every command ended (ledger), and what nobody could apply (dead_letters).
-- A batch changes lanes and ledger in the transaction of its effects, so that a crash leaves all
-- of it or nothing.

-- How a command ended; final.
CREATE TYPE farwrite.outcome AS ENUM ('applied', 'rejected', 'expired', 'dead_lettered');

-- The worker that owns this database: one row.
CREATE TABLE farwrite.owner (
    only_row      boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    database_name text NOT NULL,          -- Farwrite's name of this database, as in subjects
    epoch         uuid NOT NULL,          -- the fence: random, minted at each takeover
    worker        text NOT NULL,          -- host and process of the owner, for people
    taken_at      timestamptz NOT NULL    -- when it took over
);

-- One row a takeover: the branches of history that bookmarks name. A row that a replica has not
-- replayed, or that a failover took away, tells that a bookmark is not of this branch.
CREATE TABLE farwrite.history (
    epoch      uuid PRIMARY KEY,          -- what a bookmark carries
    parent     uuid,                      -- the epoch before it; null for the first
    timeline   integer NOT NULL,          -- the primary's timeline at the takeover
    begin_lsn  pg_lsn NOT NULL,           -- flush position when this epoch began
    parent_lsn pg_lsn,                    -- last position of the parent that survives here
    taken_at   timestamptz NOT NULL
);

-- The streams that this database reads commands from.
CREATE TABLE farwrite.streams (
    stream_id    integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name         text NOT NULL UNIQUE,    -- JetStream's name of it
    created      text NOT NULL,           -- JetStream's time of creation, as JetStream prints it
    identity     uuid NOT NULL,           -- the random id in the stream's metadata
    generation   integer NOT NULL DEFAULT 0, -- counts changes of the two columns below
    lanes        integer NOT NULL DEFAULT 0, -- number of lanes; 0 before the first takeover
    hash_version integer NOT NULL DEFAULT 0, -- which hash of the key chooses the lane
    low_water    bigint NOT NULL DEFAULT 0,  -- everything up to this sequence (inclusive) is settled
    low_water_at timestamptz                 -- the stream's time of that message
);

-- How far each lane has come. Updated by every batch, so it leaves room for HOT updates.
CREATE TABLE farwrite.lanes (
    stream_id       integer NOT NULL REFERENCES farwrite.streams,
    lane            integer NOT NULL,     -- counted from 0
    generation      integer NOT NULL,     -- of the stream, when this row was written
    epoch           uuid NOT NULL,        -- whose batches may move it
    sequence        bigint NOT NULL,      -- every command of this lane up to here (inclusive) is settled
    sequence_at     bigint,               -- JetStream's time of that message, in nanoseconds since 1970; null before the first
    anchor_sequence bigint NOT NULL DEFAULT 0, -- the last command that this lane applied; 0 for none
    anchor_at       bigint,               -- JetStream's time of it, in nanoseconds since 1970
    anchor_id       text,                 -- its message id
    PRIMARY KEY (stream_id, lane)
) WITH (fillfactor = 50);

-- How every command ended, by command id. Partitioned by day of the id's own time: a UUIDv7 sorts
-- by time, so a day is a range of ids and a look-up needs nothing but the id.
CREATE TABLE farwrite.ledger (
    command_id  uuid NOT NULL,
    outcome     farwrite.outcome NOT NULL,
    answer      json,                     -- the output, or the rejection, or why it was dead-lettered
    fingerprint uuid NOT NULL,            -- hash of name, version, key and body
    stream_id   integer NOT NULL,
    sequence    bigint NOT NULL,          -- where in the stream the applied message was
    settled_at  timestamptz NOT NULL DEFAULT now(), -- the transaction's start
    PRIMARY KEY (command_id)
) PARTITION BY RANGE (command_id);

-- The same for ids without a time (derived ids, UUIDs of other versions): never too old.
CREATE TABLE farwrite.ledger_derived (
    command_id  uuid PRIMARY KEY,
    outcome     farwrite.outcome NOT NULL,
    answer      json,
    fingerprint uuid NOT NULL,
    stream_id   integer NOT NULL,
    sequence    bigint NOT NULL,
    settled_at  timestamptz NOT NULL DEFAULT now()
);

-- What nobody could apply, with its raw bytes, until an operator has looked at it.
CREATE TABLE farwrite.dead_letters (
    stream_id        integer NOT NULL,
    sequence         bigint NOT NULL,     -- where in the stream it was
    command_id       uuid,                -- null where the message had none
    reason           text NOT NULL,       -- stable code, such as unknown_command
    message          text NOT NULL,       -- for people
    subject          text NOT NULL,
    headers          json NOT NULL,       -- [[name, value], …] as they were received
    body             bytea NOT NULL,      -- the raw bytes
    published_at     timestamptz NOT NULL, -- the stream's time of it
    dead_lettered_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (stream_id, sequence)
);
CREATE INDEX dead_letters_by_command ON farwrite.dead_letters (command_id);

-- The lowest UUIDv7 whose time is at or after p_time. Ids are compared as bytes, time first.
CREATE FUNCTION farwrite.first_id_at(p_time timestamptz) RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog
RETURN (lpad(to_hex(floor(extract(epoch FROM p_time) * 1000)::bigint), 12, '0') || '70008000000000000000')::uuid;

-- The time that a UUIDv7 carries; null for every other id, which belongs into ledger_derived.
CREATE FUNCTION farwrite.id_time(p_id uuid) RETURNS timestamptz
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog
RETURN CASE
    WHEN substr(p_id::text, 15, 1) = '7' AND substr(p_id::text, 20, 1) IN ('8', '9', 'a', 'b')
    THEN to_timestamp(('x' || lpad(replace(left(p_id::text, 13), '-', ''), 16, '0'))::bit(64)::bigint / 1000.0)
END;

-- Makes the ledger's partitions from the day of p_from to the day of p_to (both inclusive, UTC),
-- and answers how many were new. A partition is attached, not created in place: that does not
-- hold up who reads or writes the ledger.
CREATE FUNCTION farwrite.make_ledger_days(p_from timestamptz, p_to timestamptz) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    v_day  timestamp := date_trunc('day', p_from AT TIME ZONE 'UTC');
    v_last timestamp := date_trunc('day', p_to AT TIME ZONE 'UTC');
    v_name text;
    v_made integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('farwrite.ledger'));
    WHILE v_day <= v_last LOOP
        v_name := 'ledger_' || to_char(v_day, 'YYYYMMDD');
        IF to_regclass('farwrite.' || v_name) IS NULL THEN
            EXECUTE format('CREATE TABLE farwrite.%I (LIKE farwrite.ledger INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', v_name);
            EXECUTE format('ALTER TABLE farwrite.ledger ATTACH PARTITION farwrite.%I FOR VALUES FROM (%L) TO (%L)',
                v_name,
                farwrite.first_id_at(v_day AT TIME ZONE 'UTC'),
                farwrite.first_id_at((v_day + interval '1 day') AT TIME ZONE 'UTC'));
            v_made := v_made + 1;
        END IF;
        v_day := v_day + interval '1 day';
    END LOOP;
    RETURN v_made;
END $$;

-- Drops the ledger's partitions that lie wholly before p_before (UTC days), and answers how many.
CREATE FUNCTION farwrite.drop_ledger_days(p_before timestamptz) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    v_name text;
    v_dropped integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('farwrite.ledger'));
    FOR v_name IN
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'farwrite.ledger'::regclass
          AND to_date(substr(c.relname, 8), 'YYYYMMDD') < (date_trunc('day', p_before AT TIME ZONE 'UTC'))::date
    LOOP
        EXECUTE format('DROP TABLE farwrite.%I', v_name);
        v_dropped := v_dropped + 1;
    END LOOP;
    RETURN v_dropped;
END $$;
