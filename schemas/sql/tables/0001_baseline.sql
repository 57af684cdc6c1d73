-- The tables and types of Farwrite, as the first release has them. Functions are not here: they
-- stand in ../functions, and a step of the tables calls none of them.
--
-- The truth about what was applied is: who may apply (owner, history), how far each lane has come
-- (streams, lanes), how every command ended (ledger, ledger_derived), what waits (parked,
-- key_queues, pauses), and what could not be applied (dead_letters). A batch changes lanes, ledger
-- and parked in the transaction of its effects: a crash leaves all of it or nothing.

-- How a command ended; final.
CREATE TYPE farwrite.outcome AS ENUM ('applied', 'rejected', 'expired', 'dead_lettered');

-- What a function may want to know about its command beside the body.
CREATE TYPE farwrite.meta AS (
    id           uuid,                    -- the command id: derive ids of rows from it
    name         text,
    version      integer,
    key          text,                    -- null where the command has none
    origin       text,                    -- the region that published it
    sequence     bigint,                  -- its sequence in the stream
    published_at timestamptz              -- the stream's time of it
);

-- The statements of one row command.
CREATE TYPE farwrite.row_plan AS (
    name   text,    -- the table, for messages
    change text,    -- changes the row and answers it; $1 key or row, $2 the command's key, $3 set, $4 if
    look   text,    -- locks the row; answers whether it is as "if" says, and the row; $1 key, $2 if;
                    -- null where a change that answers no row was suppressed
    key    text,    -- answers the key that the command must have; $1 key or row
    keyed  boolean  -- whether there is such a key: not for a row whose key the database makes
);

-- Each install of the functions, oldest first; the last one is in force.
CREATE TABLE farwrite.function_installs (
    install_id   integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    revision     integer NOT NULL,        -- of the functions' text; a newer program's is higher
    hash         text NOT NULL,           -- of the text of all functions
    signatures   text[] NOT NULL,         -- of the functions that it installed
    installed_by text NOT NULL DEFAULT session_user,
    installed_at timestamptz NOT NULL DEFAULT now()
);

-- The worker that owns this database: one row.
CREATE TABLE farwrite.owner (
    only_row      boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    database_name text NOT NULL,          -- Farwrite's name of this database, as in subjects
    epoch         uuid NOT NULL,          -- the fence: random, minted at each takeover
    worker        text NOT NULL,          -- host and process of the owner, for people
    taken_at      timestamptz NOT NULL,   -- when it took over
    released_at   timestamptz,            -- when it stopped in good order; null while it works, and after it vanished
    flushed_lsn   pg_lsn,                 -- a position that was flushed before this row was written (the heartbeat
                                          -- writes it): a replica that shows the row has replayed up to it, inclusive
    -- The session that stands for the owner, and how long it may be silent. The owner asks something
    -- over it several times in that time. When it last did is the server's own note: so a lease
    -- needs no writes, and no clock but the primary's.
    pid           integer,                -- its backend
    session_began timestamptz,            -- the backend's start: a pid is used again
    lease         interval NOT NULL DEFAULT '5 s',
    -- Which database this is: what the server said of it at the first takeover (farwrite.home), and an incarnation,
    -- random, by '/'. A copy, a dump or an upgraded cluster has these rows too, and its server says something else.
    identity      text NOT NULL
);

-- The epoch of the last takeover, as long as the server has not crashed since: the table is not logged, and
-- PostgreSQL empties such tables after a crash. So the next takeover knows whether the server fell, or the
-- worker alone.
CREATE UNLOGGED TABLE farwrite.since_crash (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    epoch    uuid NOT NULL
);

-- One row a takeover: the branches of history that bookmarks name. A row that a replica has not
-- replayed, or that a failover took away, tells that a bookmark is not of this branch. A takeover
-- deletes the oldest rows beyond its bound.
CREATE TABLE farwrite.history (
    epoch      uuid PRIMARY KEY,          -- what a bookmark carries
    number     bigint GENERATED ALWAYS AS IDENTITY UNIQUE, -- in the order of takeovers, with gaps
    parent     uuid,                      -- the epoch before it; null for the first
    timeline   integer NOT NULL,          -- the primary's timeline at the takeover
    begin_lsn  pg_lsn NOT NULL,           -- flush position when this epoch began
    parent_lsn pg_lsn,                    -- last position of the parent that is known to survive here (inclusive);
                                          -- null where nothing of it was lost: the timeline stayed the same
    left_timeline integer,                -- the timeline that parent_lsn is the end of; null with it
    taken_at   timestamptz NOT NULL,
    identity   text NOT NULL              -- of the database then, as in farwrite.owner: rows of another one say nothing
                                          -- of this server's log, whose positions do not compare with theirs
);

-- What looks a branch or a position up reads a few rows, however many takeovers there were.
CREATE INDEX history_ends ON farwrite.history (left_timeline, parent_lsn) WHERE left_timeline IS NOT NULL;
CREATE INDEX history_positions ON farwrite.history (begin_lsn, taken_at);

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
    low_water_at timestamptz,                -- the stream's time of that message
    -- The highest position of all lanes when their number last changed: it proves what was passed until a
    -- lane comes as far again.
    high_water    bigint NOT NULL DEFAULT 0,
    high_water_at bigint,                    -- JetStream's time of that message, in nanoseconds since 1970
    high_water_id uuid,                      -- its message id, as in farwrite.lanes
    -- Why and when the stream was found to be no longer the one whose positions stand here. Nothing is read from
    -- it until an operator adopts it, however it looks by then.
    refused      text,
    refused_at   timestamptz,
    -- The primary had a standby once. Then nothing is trimmed before an operator says behind which.
    had_standby  boolean NOT NULL DEFAULT false,
    trim_floor   bigint                   -- messages below this sequence (exclusive) may be gone from the stream; null while
                                          -- nothing was trimmed. Written before the stream is trimmed: a database whose own
                                          -- position is below the floor knows that commands which it lacks are gone
);

-- How far each lane has come. Every batch updates its row. The fill factor leaves room for HOT
-- updates, and little: a page is pruned as soon as less of it is free than the fill factor leaves,
-- and pruning versions that a query on a replica may still see holds up the replay there. So a page
-- is pruned every 38 batches of 8 lanes; at a fill factor of 50 it would be every 18.
--
-- A session that changes what is parked or paused for a lane holds the lane's row first (a batch by
-- its fence, an operator's act by its own lock): so a batch sees all of it or nothing.
CREATE TABLE farwrite.lanes (
    stream_id       integer NOT NULL REFERENCES farwrite.streams,
    lane            integer NOT NULL,     -- counted from 0
    generation      integer NOT NULL,     -- of the stream, when this row was written
    epoch           uuid NOT NULL,        -- whose batches may move it
    sequence        bigint NOT NULL,      -- every command of this lane up to here (inclusive) is settled or parked
    -- The message there, another lane's perhaps. The highest one of all lanes must be in the stream before anything
    -- is read from it: a stream that holds it holds all that was passed.
    sequence_at     bigint,               -- JetStream's time of it, in nanoseconds since 1970; null before the first
    sequence_id     uuid,                 -- its message id, or a hash of one that is no command's; null for none
    parked          bigint NOT NULL DEFAULT 0,      -- how many of its commands are parked
    paused          boolean NOT NULL DEFAULT false, -- whether farwrite.pauses has rows
    suspects        bigint[] NOT NULL DEFAULT '{}', -- commands that ran alone after an unclean end and did not come back,
                                          -- by sequence; twice for each time, once where somebody ended the session
    suspect_in_worker boolean NOT NULL DEFAULT false, -- whether the last of them ran in the worker itself: a handler
    PRIMARY KEY (stream_id, lane)
) WITH (fillfactor = 90);

-- How every command ended, by command id. Partitioned by day of the id's own time: a UUIDv7 sorts
-- by time, so a day is a range of ids and a look-up needs nothing but the id.
CREATE TABLE farwrite.ledger (
    command_id   uuid NOT NULL,
    outcome      farwrite.outcome NOT NULL,
    answer       json,                    -- the output, or the rejection, or why it was dead-lettered
    fingerprint  uuid NOT NULL,           -- hash of name, version, key and body; zeros match every command
    stream_id    integer NOT NULL,        -- 0 for one that was cancelled before it came
    sequence     bigint NOT NULL,         -- where in the stream the applied message was
    settled_at   timestamptz NOT NULL DEFAULT now(), -- the transaction's start
    attempts     integer NOT NULL DEFAULT 1, -- how often it was tried alone, or 1
    published_at timestamptz,             -- the stream's time of the message
    PRIMARY KEY (command_id)
) PARTITION BY RANGE (command_id);

-- The same for ids without a time (derived ids, UUIDs of other versions): never too old.
CREATE TABLE farwrite.ledger_derived (
    command_id   uuid PRIMARY KEY,
    outcome      farwrite.outcome NOT NULL,
    answer       json,
    fingerprint  uuid NOT NULL,
    stream_id    integer NOT NULL,
    sequence     bigint NOT NULL,
    settled_at   timestamptz NOT NULL DEFAULT now(),
    attempts     integer NOT NULL DEFAULT 1,
    published_at timestamptz
);

-- Outcomes that are not told yet: of commands that expire, where standbys are required. A row comes with
-- the outcome's own transaction, and goes when every required standby has flushed that. A failover that
-- lost the outcome could end the command as expired, though another outcome was told.
CREATE TABLE farwrite.unconfirmed (
    command_id uuid PRIMARY KEY
);

-- Since when the ledger knows every command, by the time of its id: whole days (UTC). What is older was
-- dropped; whether such an id was applied nobody knows any more, and it is refused. It only rises.
CREATE TABLE farwrite.ledger_horizon (
    only_row   boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    known_from timestamptz NOT NULL
);
INSERT INTO farwrite.ledger_horizon (known_from) VALUES ('-infinity');

-- What could not be applied, with its raw bytes, until an operator has looked at it.
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
    name             text,                -- the command's name, where the subject has one
    order_key        text,                -- its key, where it has one
    PRIMARY KEY (stream_id, sequence)
);
CREATE INDEX dead_letters_by_command ON farwrite.dead_letters (command_id);

-- Commands that must wait: tried again later, not known yet, scheduled, paused, or behind one of
-- their key that waits. They are parked in the transaction of their batch, so the lane's position
-- passes them and no other key waits.
CREATE TABLE farwrite.parked (
    stream_id    integer NOT NULL,
    sequence     bigint NOT NULL,         -- where in the stream it is
    command_id   uuid NOT NULL,
    fingerprint  uuid NOT NULL,
    name         text NOT NULL,
    version      integer NOT NULL,
    order_key    text,                    -- null where it has no order
    key_queue    text NOT NULL,           -- what it waits in: 'k' and the key, or 'i' and the id
    lane_hash    bigint NOT NULL,         -- its lane is this modulo the number of lanes
    place        bigint,                  -- its place in the key queue; null while it is only scheduled
    due_at       timestamptz,             -- when a scheduled command enters its key queue
    reason       text NOT NULL,           -- stable code: why it waits
    error        json,                    -- code and message of its last failure
    attempts     integer NOT NULL,        -- how often it was tried alone
    subject      text NOT NULL,
    headers      json NOT NULL,           -- [[name, value], …] as they were received
    body         bytea NOT NULL,
    published_at bigint NOT NULL,         -- the stream's time of it, in nanoseconds since 1970
    parked_at    timestamptz NOT NULL DEFAULT clock_timestamp(), -- the first time
    lacks_since  timestamptz NOT NULL DEFAULT clock_timestamp(), -- since when it waits for something that is not there, or behind others
    PRIMARY KEY (stream_id, sequence),
    CHECK ((place IS NULL) = (due_at IS NOT NULL))
);
CREATE UNIQUE INDEX parked_in_key_queue ON farwrite.parked (stream_id, key_queue, place);
CREATE UNIQUE INDEX parked_by_command ON farwrite.parked (command_id, stream_id);
CREATE INDEX parked_scheduled ON farwrite.parked (stream_id, due_at) WHERE place IS NULL;
-- Those that have a time after which they are not applied.
CREATE INDEX parked_expiring ON farwrite.parked (stream_id, sequence) WHERE headers::text ILIKE '%farwrite-expires-at%';

-- One row for each key queue in which something waits. Its commands are tried from its first place
-- on; scheduled ones are in no key queue yet.
CREATE TABLE farwrite.key_queues (
    stream_id  integer NOT NULL,
    key_queue  text NOT NULL,
    lane_hash  bigint NOT NULL,
    commands   bigint NOT NULL,           -- how many wait in it
    last_place bigint NOT NULL,
    due_at     timestamptz NOT NULL,      -- when its first one is tried; a key queue that was tried goes behind the others
    PRIMARY KEY (stream_id, key_queue)
);
CREATE INDEX key_queues_due ON farwrite.key_queues (stream_id, due_at);

-- What an operator has paused: a command name, or a key.
CREATE TABLE farwrite.pauses (
    name      text,
    order_key text,
    reason    text NOT NULL,
    paused_by text NOT NULL DEFAULT session_user,
    paused_at timestamptz NOT NULL DEFAULT now(),
    CHECK ((name IS NULL) <> (order_key IS NULL)),
    UNIQUE NULLS NOT DISTINCT (name, order_key)
);

-- What operators did by hand. It is not in the stream: a failover that loses commits loses it too.
CREATE TABLE farwrite.operations (
    operation_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    act          text NOT NULL,           -- requeue, discard, release, cancel, pause, resume, adopt_stream, adopt_database
    stream_id    integer,
    sequence     bigint,
    command_id   uuid,
    subject      text,                    -- what was paused, or the code that a dead letter had
    reason       text,
    done_by      text NOT NULL DEFAULT session_user,
    done_at      timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX operations_by_command ON farwrite.operations (command_id);

-- Functions of this database that are commands: farwrite.register writes them.
CREATE TABLE farwrite.functions (
    function_id   integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name          text NOT NULL CHECK (name ~ '^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$' AND length(name) <= 128),
    version       integer NOT NULL CHECK (version > 0),
    signature     text NOT NULL,          -- schema-qualified, with its argument types
    takes_meta    boolean NOT NULL,       -- whether it has a second argument of type farwrite.meta
    alone         boolean NOT NULL,       -- whether it wants a transaction of its own
    json_schema   json,                   -- what a body is checked with before anything runs; null: not checked
    registered_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (name, version)
);

-- Counts changes of the registry, so that a worker sees that its copy is old.
CREATE TABLE farwrite.registry (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    changes  bigint NOT NULL
);
INSERT INTO farwrite.registry (changes) VALUES (0);

-- The tables that are open for row commands. Names, not oids: they outlive a table that is made again.
CREATE TABLE farwrite.open_tables (
    name        text PRIMARY KEY,         -- schema.table, without quotes, as bodies write it
    relation    text NOT NULL,            -- the same for SQL, quoted where it must be
    partitioned boolean NOT NULL,         -- if not, only the table itself is changed, never what inherits from it
    key_columns text[] NOT NULL,          -- of the primary key, in its order
    omittable   text[] NOT NULL,          -- those of them that fill themselves when an insert leaves them out
    insertable  text[],                   -- null: no inserts
    updatable   text[],                   -- null: no updates; upserts need both
    deletable   boolean NOT NULL,
    readable    text[],                   -- what outputs show; null: every column, also a later one
    comparable  text[] NOT NULL,          -- what an "if" may name
    key_match   text NOT NULL,            -- SQL: whether row t has the key k
    key_text    text NOT NULL,            -- SQL: the key that a command of row k must have
    opened_by   text NOT NULL DEFAULT session_user,
    opened_at   timestamptz NOT NULL DEFAULT now()
);
