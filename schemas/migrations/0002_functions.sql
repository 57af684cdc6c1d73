-- Functions in the database as commands: the registry, and the dispatcher that is generated from
-- it. A call through EXECUTE would be planned anew for every command; a generated CASE keeps its
-- plans for the life of a session.

-- What a function may want to know about its command beside the body.
CREATE TYPE farwrite.meta AS (
    id           uuid,                    -- the command id: derive ids of rows from it
    name         text,
    version      integer,
    key          text,                    -- null where the command has none
    origin       text,                    -- the region that published it
    sequence     bigint,                  -- its place in the stream
    published_at timestamptz              -- the stream's time of it
);

CREATE TABLE farwrite.functions (
    function_id   integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name          text NOT NULL CHECK (name ~ '^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$' AND length(name) <= 128),
    version       integer NOT NULL CHECK (version > 0),
    signature     text NOT NULL,          -- schema-qualified, with its argument types
    takes_meta    boolean NOT NULL,       -- whether it has a second argument of type farwrite.meta
    alone         boolean NOT NULL,       -- whether it wants a transaction of its own
    registered_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (name, version)
);

-- Calls the function with that number: replaced by farwrite.make_dispatcher() whenever the
-- registry changes. SQLSTATE FW003 where there is no such function (any more).
CREATE FUNCTION farwrite.call(p_function integer, p_body jsonb, p_meta farwrite.meta) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'no function is registered under number %', p_function USING ERRCODE = 'FW003';
END $$;

CREATE FUNCTION farwrite.make_dispatcher() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    r record;
    v_call text;
    v_branches text := '';
BEGIN
    FOR r IN
        SELECT f.function_id, f.takes_meta, p.prorettype, n.nspname, p.proname
        FROM farwrite.functions f
        JOIN pg_proc p ON p.oid = to_regprocedure(f.signature)
        JOIN pg_namespace n ON n.oid = p.pronamespace
        ORDER BY f.function_id
    LOOP
        v_call := format('%I.%I(p_body%s)', r.nspname, r.proname, CASE WHEN r.takes_meta THEN ', p_meta' ELSE '' END);
        v_branches := v_branches || format(E'    WHEN %s THEN %s;\n', r.function_id,
            CASE r.prorettype
                WHEN 'void'::regtype THEN 'PERFORM ' || v_call || '; RETURN NULL'
                WHEN 'json'::regtype THEN 'RETURN ' || v_call || '::text'
                WHEN 'jsonb'::regtype THEN 'RETURN ' || v_call || '::text'
                ELSE 'RETURN to_json(' || v_call || ')::text'
            END);
    END LOOP;
    EXECUTE format($dispatcher$
        CREATE OR REPLACE FUNCTION farwrite.call(p_function integer, p_body jsonb, p_meta farwrite.meta) RETURNS text
        LANGUAGE plpgsql AS $body$
        BEGIN
            CASE p_function
            WHEN 0 THEN RETURN NULL;
        %s    ELSE
                RAISE EXCEPTION 'no function is registered under number %%', p_function USING ERRCODE = 'FW003';
            END CASE;
        END $body$ $dispatcher$, v_branches);
END $$;

-- Registers a function as the command p_name, in p_version; again with another function replaces
-- it. The function takes the body (jsonb) and, if it wants, what is known about the command
-- (farwrite.meta); what it returns is the command's output. With p_alone it gets a transaction of
-- its own, for functions whose settings or deferred constraints must not meet other commands.
CREATE FUNCTION farwrite.register(p_name text, p_function regprocedure, version integer DEFAULT 1, alone boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    v_function pg_proc;
    v_takes_meta boolean;
BEGIN
    SELECT * INTO STRICT v_function FROM pg_proc WHERE oid = p_function;
    v_takes_meta := v_function.pronargs = 2;
    IF v_function.prokind <> 'f' OR v_function.proretset THEN
        RAISE EXCEPTION '% is not a plain function: a command needs one that returns one value', p_function;
    ELSIF v_function.proargtypes::text NOT IN (
        'jsonb'::regtype::oid::text,
        'jsonb'::regtype::oid::text || ' ' || 'farwrite.meta'::regtype::oid::text)
    THEN
        RAISE EXCEPTION '% does not take (jsonb) or (jsonb, farwrite.meta)', p_function
            USING HINT = 'The body arrives as jsonb; a second argument receives id, key, origin and place in the stream.';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('farwrite.functions'));
    INSERT INTO farwrite.functions AS f (name, version, signature, takes_meta, alone)
    VALUES (p_name, register.version, p_function::text, v_takes_meta, register.alone)
    ON CONFLICT ON CONSTRAINT functions_name_version_key DO UPDATE
    SET signature = excluded.signature, takes_meta = excluded.takes_meta,
        alone = excluded.alone, registered_at = now();
    PERFORM farwrite.make_dispatcher();
END $$;

-- Takes a registration back; answers whether there was one.
CREATE FUNCTION farwrite.unregister(p_name text, version integer DEFAULT 1) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    v_found boolean;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('farwrite.functions'));
    DELETE FROM farwrite.functions f WHERE f.name = p_name AND f.version = unregister.version;
    v_found := FOUND;
    PERFORM farwrite.make_dispatcher();
    RETURN v_found;
END $$;
