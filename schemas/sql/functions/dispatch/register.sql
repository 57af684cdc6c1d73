-- Registers a function as the command p_name, in p_version; again with another function replaces
-- it. The function takes the body (jsonb) and, if it wants, what is known about the command
-- (farwrite.meta); what it returns is the command's output.
--   alone        it gets a transaction of its own.
--   json_schema  bodies that do not fit are rejected as bad_body before anything runs.
-- Commands that wait as unknown_command are tried at once.
CREATE OR REPLACE FUNCTION farwrite.register(
    p_name text, p_function regprocedure, version integer DEFAULT 1, alone boolean DEFAULT false,
    json_schema json DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    v_function pg_proc;
    v_arguments text;
BEGIN
    SELECT * INTO STRICT v_function FROM pg_proc WHERE oid = p_function;
    v_arguments := oidvectortypes(v_function.proargtypes);
    IF v_function.prokind <> 'f' OR v_function.proretset THEN
        RAISE EXCEPTION '% is not a plain function: a command needs one that returns one value', p_function;
    ELSIF v_arguments NOT IN ('jsonb', 'jsonb, farwrite.meta') THEN
        RAISE EXCEPTION '% does not take (jsonb) or (jsonb, farwrite.meta)', p_function
            USING HINT = 'The body arrives as jsonb; a second argument receives id, key, origin and place in the stream.';
    ELSIF json_typeof(register.json_schema) NOT IN ('object', 'boolean') THEN
        RAISE EXCEPTION 'the JSON Schema is not an object';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('farwrite.functions'));
    INSERT INTO farwrite.functions AS f (name, version, signature, takes_meta, alone, json_schema)
    VALUES (p_name, register.version, p_function::text, v_arguments <> 'jsonb', register.alone, register.json_schema)
    ON CONFLICT ON CONSTRAINT functions_name_version_key DO UPDATE
    SET signature = excluded.signature, takes_meta = excluded.takes_meta, alone = excluded.alone,
        json_schema = excluded.json_schema, registered_at = now();
    PERFORM farwrite.make_dispatcher();
    UPDATE farwrite.key_queues l SET due_at = clock_timestamp()
    FROM farwrite.parked p
    WHERE p.stream_id = l.stream_id AND p.key_queue = l.key_queue AND p.name = p_name AND p.reason = 'unknown_command';
END $$;
