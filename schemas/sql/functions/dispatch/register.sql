-- Registers a function as the command p_name, in p_version; again with another function replaces
-- it. The function takes the body (jsonb) and, if it wants, what is known about the command
-- (farwrite.meta); what it returns is the command's output.
--   alone        it gets a transaction of its own.
--   set_form     it takes (jsonb[]) or (jsonb[], farwrite.meta[]), a run of commands at once in
--                their order, and returns jsonb[], one output each.
--   json_schema  bodies that do not fit are rejected as bad_body before anything runs.
-- Commands that wait as unknown_command are tried at once.
CREATE OR REPLACE FUNCTION farwrite.register(
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
    UPDATE farwrite.key_queues l SET due_at = clock_timestamp()
    FROM farwrite.parked p
    WHERE p.stream_id = l.stream_id AND p.key_queue = l.key_queue AND p.name = p_name AND p.reason = 'unknown_command';
END $$;
