-- Commands that must wait: tried again later, not known yet, scheduled, paused, or behind one of
-- their key that waits. They are parked in the transaction of their batch, so the lane's position
-- passes them and no other key waits.

-- Whoever changes what is parked or paused for a lane holds the lane's row first (a batch by its
-- fence, an operator's act by its own lock), so that a batch sees either all of it or nothing.
ALTER TABLE farwrite.lanes
    ADD COLUMN parked bigint NOT NULL DEFAULT 0,            -- how many of its commands are parked
    ADD COLUMN paused boolean NOT NULL DEFAULT false,       -- whether farwrite.pauses has rows
    ADD COLUMN suspects bigint[] NOT NULL DEFAULT '{}';     -- commands that ran alone after an unclean end and did not come back, by sequence; once for each time

-- When the owner stopped in good order; null while it works, and after it went without a word.
ALTER TABLE farwrite.owner ADD COLUMN released_at timestamptz;

ALTER TABLE farwrite.ledger
    ADD COLUMN attempts integer NOT NULL DEFAULT 1, -- how often it was tried alone, or 1
    ADD COLUMN published_at timestamptz;            -- the stream's time of the message
ALTER TABLE farwrite.ledger_derived
    ADD COLUMN attempts integer NOT NULL DEFAULT 1,
    ADD COLUMN published_at timestamptz;

ALTER TABLE farwrite.dead_letters
    ADD COLUMN name text,      -- the command's name, where the subject has one
    ADD COLUMN order_key text; -- its key, where it has one

CREATE TABLE farwrite.parked (
    stream_id    integer NOT NULL,
    sequence     bigint NOT NULL,      -- where in the stream it is
    command_id   uuid NOT NULL,
    fingerprint  uuid NOT NULL,
    name         text NOT NULL,
    version      integer NOT NULL,
    order_key    text,                 -- null where it has no order
    line         text NOT NULL,        -- what it stands in: 'k' and the key, or 'i' and the id
    lane_hash    bigint NOT NULL,      -- its lane is this modulo the number of lanes
    place        bigint,               -- its place in the line; null while it is only scheduled
    due_at       timestamptz,          -- when a scheduled command enters its line
    reason       text NOT NULL,        -- stable code: why it waits
    error        json,                 -- code and message of its last failure
    attempts     integer NOT NULL,     -- how often it was tried alone
    subject      text NOT NULL,
    headers      json NOT NULL,        -- [[name, value], …] as they were received
    body         bytea NOT NULL,
    published_at bigint NOT NULL,      -- the stream's time of it, in nanoseconds since 1970
    parked_at    timestamptz NOT NULL DEFAULT clock_timestamp(), -- the first time
    lacks_since  timestamptz NOT NULL DEFAULT clock_timestamp(), -- since when it waits for something that is not there, or behind others
    PRIMARY KEY (stream_id, sequence),
    CHECK ((place IS NULL) = (due_at IS NOT NULL))
);
CREATE UNIQUE INDEX parked_in_line ON farwrite.parked (stream_id, line, place);
CREATE UNIQUE INDEX parked_by_command ON farwrite.parked (command_id, stream_id);
CREATE INDEX parked_scheduled ON farwrite.parked (stream_id, due_at) WHERE place IS NULL;
-- Those that have a time after which they are not applied.
CREATE INDEX parked_expiring ON farwrite.parked (stream_id, sequence) WHERE headers::text ILIKE '%farwrite-expires-at%';

-- One row for each line that something waits in. A line's commands are tried from its first place
-- on; scheduled ones are in no line yet.
CREATE TABLE farwrite.parked_lines (
    stream_id  integer NOT NULL,
    line       text NOT NULL,
    lane_hash  bigint NOT NULL,
    commands   bigint NOT NULL,        -- how many wait in it
    last_place bigint NOT NULL,
    due_at     timestamptz NOT NULL,   -- when its first one is tried; whoever was tried goes behind the others
    PRIMARY KEY (stream_id, line)
);
CREATE INDEX parked_lines_due ON farwrite.parked_lines (stream_id, due_at);

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
    act          text NOT NULL,        -- requeue, discard, release, cancel, pause, resume
    stream_id    integer,
    sequence     bigint,
    command_id   uuid,
    subject      text,                 -- what was paused, or the code that a dead letter had
    reason       text,
    done_by      text NOT NULL DEFAULT session_user,
    done_at      timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX operations_by_command ON farwrite.operations (command_id);

-- The lowest protocol of workers that may run on this schema. A worker that speaks a lower one
-- refuses to start; raised by a migration that an older worker cannot live with.
CREATE FUNCTION farwrite.requires_protocol() RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 2;

-- The registry learns two forms more: a function that takes a whole run of commands in one call
-- (set_form), and a JSON Schema that a body is checked with before anything runs.
ALTER TABLE farwrite.functions
    ADD COLUMN set_form boolean NOT NULL DEFAULT false,
    ADD COLUMN json_schema json;

-- Counts changes of the registry, so that a worker sees that its copy is old.
CREATE TABLE farwrite.registry (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    changes  bigint NOT NULL
);
INSERT INTO farwrite.registry (changes) VALUES (0);

-- Refuses the command with a stable code of the app's own: it is recorded and its caller is told.
CREATE FUNCTION farwrite.reject(p_code text, p_message text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'P0001', MESSAGE = p_message, DATATYPE = p_code;
END $$;

-- Asks to be tried again after p_wait: the command is parked for that long, its key behind it, and
-- no attempt is spent.
CREATE FUNCTION farwrite.try_later(p_wait interval, p_message text DEFAULT 'asked to be tried later') RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'FW010', MESSAGE = p_message, SCHEMA = 'farwrite',
        DETAIL = greatest(0, extract(epoch FROM p_wait) * 1000)::bigint::text;
END $$;

-- Calls a set-form function with a run of commands: replaced together with farwrite.call.
CREATE FUNCTION farwrite.call_set(p_function integer, p_bodies jsonb[], p_metas farwrite.meta[]) RETURNS text[]
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'no function is registered under number %', p_function USING ERRCODE = 'FW003', SCHEMA = 'farwrite';
END $$;

-- What a set-form function answered, as text; one output a command, or its run fails.
CREATE FUNCTION farwrite.set_outputs(p_function regprocedure, p_outputs jsonb[], p_count integer) RETURNS text[]
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF coalesce(cardinality(p_outputs), 0) <> p_count THEN
        RAISE EXCEPTION '% answered % outputs for % commands', p_function, coalesce(cardinality(p_outputs), 0), p_count
            USING ERRCODE = 'FW005', SCHEMA = 'farwrite';
    END IF;
    RETURN p_outputs::text[];
END $$;

-- It takes what makes up farwrite.meta one by one now.
DROP FUNCTION farwrite.call(integer, jsonb, farwrite.meta);

CREATE OR REPLACE FUNCTION farwrite.make_dispatcher() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    -- Made for those only that take it.
    c_meta CONSTANT text := 'ROW(p_id, p_name, p_version, p_key, p_origin, p_sequence, to_timestamp(p_at / 1e9))::farwrite.meta';
    r record;
    v_call text;
    v_branches text := '';
    v_set_branches text := '';
BEGIN
    UPDATE farwrite.registry SET changes = changes + 1;
    FOR r IN
        SELECT f.function_id, f.takes_meta, f.set_form, f.signature, p.prorettype, n.nspname, p.proname
        FROM farwrite.functions f
        JOIN pg_proc p ON p.oid = to_regprocedure(f.signature)
        JOIN pg_namespace n ON n.oid = p.pronamespace
        ORDER BY f.function_id
    LOOP
        IF r.set_form THEN
            v_call := format('farwrite.set_outputs(%L, %I.%I(%%s%s), %%s)', r.signature, r.nspname, r.proname,
                CASE WHEN r.takes_meta THEN ', %s' ELSE '' END);
            v_set_branches := v_set_branches || format(E'    WHEN %s THEN RETURN %s;\n', r.function_id,
                CASE WHEN r.takes_meta THEN format(v_call, 'p_bodies', 'p_metas', 'cardinality(p_bodies)')
                     ELSE format(v_call, 'p_bodies', 'cardinality(p_bodies)') END);
            v_branches := v_branches || format(E'    WHEN %s THEN RETURN (%s)[1];\n', r.function_id,
                CASE WHEN r.takes_meta THEN format(v_call, 'ARRAY[p_body]', format('ARRAY[%s]', c_meta), '1')
                     ELSE format(v_call, 'ARRAY[p_body]', '1') END);
            CONTINUE;
        END IF;
        v_call := format('%I.%I(p_body%s)', r.nspname, r.proname, CASE WHEN r.takes_meta THEN ', ' || c_meta ELSE '' END);
        v_branches := v_branches || format(E'    WHEN %s THEN %s;\n', r.function_id,
            CASE r.prorettype
                WHEN 'void'::regtype THEN 'PERFORM ' || v_call || '; RETURN NULL'
                WHEN 'json'::regtype THEN 'RETURN ' || v_call || '::text'
                WHEN 'jsonb'::regtype THEN 'RETURN ' || v_call || '::text'
                WHEN 'integer'::regtype THEN 'RETURN ' || v_call || '::text'
                WHEN 'bigint'::regtype THEN 'RETURN ' || v_call || '::text'
                ELSE 'RETURN to_json(' || v_call || ')::text'
            END);
    END LOOP;
    EXECUTE format($dispatcher$
        CREATE OR REPLACE FUNCTION farwrite.call(
            p_function integer, p_body jsonb, p_id uuid, p_name text, p_version integer, p_key text, p_origin text,
            p_sequence bigint, p_at bigint) RETURNS text
        LANGUAGE plpgsql AS $body$
        BEGIN
            CASE p_function
            WHEN 0 THEN RETURN NULL;
        %s    ELSE
                RAISE EXCEPTION 'no function is registered under number %%', p_function
                    USING ERRCODE = 'FW003', SCHEMA = 'farwrite';
            END CASE;
        END $body$ $dispatcher$, v_branches);
    EXECUTE format($dispatcher$
        CREATE OR REPLACE FUNCTION farwrite.call_set(p_function integer, p_bodies jsonb[], p_metas farwrite.meta[]) RETURNS text[]
        LANGUAGE plpgsql AS $body$
        BEGIN
            CASE p_function
            WHEN 0 THEN RETURN NULL;
        %s    ELSE
                RAISE EXCEPTION 'no function is registered under number %%', p_function
                    USING ERRCODE = 'FW003', SCHEMA = 'farwrite';
            END CASE;
        END $body$ $dispatcher$, v_set_branches);
END $$;

DROP FUNCTION farwrite.register(text, regprocedure, integer, boolean);

-- Registers a function as the command p_name, in p_version; again with another function replaces
-- it. The function takes the body (jsonb) and, if it wants, what is known about the command
-- (farwrite.meta); what it returns is the command's output.
--   alone        it gets a transaction of its own.
--   set_form     it takes (jsonb[]) or (jsonb[], farwrite.meta[]), a run of commands at once in
--                their order, and returns jsonb[], one output each.
--   json_schema  bodies that do not fit are rejected as bad_body before anything runs.
-- Commands that wait because nobody knew them are tried at once.
CREATE FUNCTION farwrite.register(
    p_name text, p_function regprocedure, version integer DEFAULT 1, alone boolean DEFAULT false,
    set_form boolean DEFAULT false, json_schema json DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    v_function pg_proc;
    v_takes_meta boolean;
    v_body oid := CASE WHEN register.set_form THEN 'jsonb[]'::regtype ELSE 'jsonb'::regtype END;
    v_meta oid := CASE WHEN register.set_form THEN 'farwrite.meta[]'::regtype ELSE 'farwrite.meta'::regtype END;
BEGIN
    SELECT * INTO STRICT v_function FROM pg_proc WHERE oid = p_function;
    v_takes_meta := v_function.pronargs = 2;
    IF v_function.prokind <> 'f' OR v_function.proretset THEN
        RAISE EXCEPTION '% is not a plain function: a command needs one that returns one value', p_function;
    ELSIF v_function.proargtypes::text NOT IN (v_body::text, v_body::text || ' ' || v_meta::text) THEN
        RAISE EXCEPTION '% does not take (%) or (%, %)', p_function,
                v_body::regtype, v_body::regtype, v_meta::regtype
            USING HINT = 'The body arrives as jsonb; a second argument receives id, key, origin and place in the stream. With set_form both are arrays.';
    ELSIF register.set_form AND v_function.prorettype <> 'jsonb[]'::regtype THEN
        RAISE EXCEPTION '% does not return jsonb[]', p_function
            USING HINT = 'A function in set form answers one output a command, in their order.';
    ELSIF register.set_form AND register.alone THEN
        RAISE EXCEPTION 'a function cannot be both alone and in set form';
    ELSIF json_typeof(register.json_schema) NOT IN ('object', 'boolean') THEN
        RAISE EXCEPTION 'the JSON Schema is not an object';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('farwrite.functions'));
    INSERT INTO farwrite.functions AS f (name, version, signature, takes_meta, alone, set_form, json_schema)
    VALUES (p_name, register.version, p_function::text, v_takes_meta, register.alone, register.set_form, register.json_schema)
    ON CONFLICT ON CONSTRAINT functions_name_version_key DO UPDATE
    SET signature = excluded.signature, takes_meta = excluded.takes_meta, alone = excluded.alone,
        set_form = excluded.set_form, json_schema = excluded.json_schema, registered_at = now();
    PERFORM farwrite.make_dispatcher();
    UPDATE farwrite.parked_lines l SET due_at = clock_timestamp()
    FROM farwrite.parked p
    WHERE p.stream_id = l.stream_id AND p.line = l.line AND p.name = p_name AND p.reason = 'unknown_command';
END $$;

SELECT farwrite.make_dispatcher();
