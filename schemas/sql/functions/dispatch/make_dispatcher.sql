-- Makes the dispatchers anew from their templates: farwrite.call, farwrite.call_all and
-- farwrite.call_guarded, each from the function of that name with _template behind it. A call through
-- EXECUTE would be planned anew for every command; a dispatcher keeps its plans for the life of a
-- session. In a template
--   /*step*/ stands for farwrite.step_template, which is no dispatcher but a part of two,
--   /*call*/ stands for the statements that find and call the function of the command at place j.
CREATE OR REPLACE FUNCTION farwrite.make_dispatcher() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    c_body CONSTANT text := 'farwrite.body(p_bodies, p_starts, j)';
    -- Made for those functions only that take it.
    c_meta CONSTANT text := 'ROW(p_ids[j], p_names[j], p_versions[j], p_keys[j], p_origins[j], p_sequences[j], to_timestamp(p_at[j] / 1e9))::farwrite.meta';
    r record;
    v_call text;
    v_numbers integer[] := '{}';
    v_calls text[] := '{}';
    v_step text;
BEGIN
    UPDATE farwrite.registry SET changes = changes + 1;
    FOR r IN
        SELECT f.function_id, f.takes_meta, p.prorettype, n.nspname, p.proname
        FROM farwrite.functions f
        JOIN pg_proc p ON p.oid = to_regprocedure(f.signature)
        JOIN pg_namespace n ON n.oid = p.pronamespace
        ORDER BY f.function_id
    LOOP
        v_call := format('%I.%I(%s)', r.nspname, r.proname, concat_ws(', ', c_body, CASE WHEN r.takes_meta THEN c_meta END));
        v_numbers := array_append(v_numbers, r.function_id);
        v_calls := array_append(v_calls, CASE
            WHEN r.prorettype = 'void'::regtype THEN 'PERFORM ' || v_call
            WHEN r.prorettype = ANY ('{json,jsonb,integer,bigint}'::regtype[]) THEN 'answers[j] := ' || v_call || '::text'
            ELSE 'answers[j] := to_json(' || v_call || ')::text'
        END);
    END LOOP;
    v_call := farwrite.choose_call('p_functions[j]', v_numbers, v_calls);
    SELECT p.prosrc || ';' INTO STRICT v_step
    FROM pg_proc p WHERE p.pronamespace = 'farwrite'::regnamespace AND p.proname = 'step_template';
    FOR r IN
        SELECT pg_get_functiondef(p.oid) AS template, 'farwrite.' || p.proname || '(' AS head
        FROM pg_proc p WHERE p.pronamespace = 'farwrite'::regnamespace AND p.proname LIKE 'call%\_template'
    LOOP
        EXECUTE replace(replace(replace(r.template,
            r.head, replace(r.head, '_template', '')), '/*step*/', v_step), '/*call*/', v_call);
    END LOOP;
END $$;
