-- Writes the functions that call the registered ones: farwrite.call for a command, farwrite.call_all for a
-- batch, farwrite.call_guarded for a batch in subtransactions, farwrite.call_set for a run of commands of a
-- function in set form.
CREATE OR REPLACE FUNCTION farwrite.make_dispatcher() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    -- Of the two kinds of dispatchers, for a command and for a batch: where the body is, what is
    -- known about the command (made for those only that take it), and what becomes of an output.
    c_bodies  CONSTANT text[] := ARRAY['p_body', 'farwrite.body(p_bodies, p_starts, j)'];
    c_metas   CONSTANT text[] := ARRAY[
        'ROW(p_id, p_name, p_version, p_key, p_origin, p_sequence, to_timestamp(p_at / 1e9))::farwrite.meta',
        'ROW(p_ids[j], p_names[j], p_versions[j], p_keys[j], p_origins[j], p_sequences[j], to_timestamp(p_at[j] / 1e9))::farwrite.meta'];
    c_outputs CONSTANT text[] := ARRAY['RETURN ', 'answers[j] := '];
    r record;
    v_function text;
    v_call text;
    v_numbers integer[] := '{}';
    v_calls text[] := '{}';
    v_batch_calls text[] := '{}';
    v_set_numbers integer[] := '{}';
    v_set_calls text[] := '{}';
BEGIN
    UPDATE farwrite.registry SET changes = changes + 1;
    FOR r IN
        SELECT f.function_id, f.takes_meta, f.set_form, f.signature, p.prorettype, n.nspname, p.proname
        FROM farwrite.functions f
        JOIN pg_proc p ON p.oid = to_regprocedure(f.signature)
        JOIN pg_namespace n ON n.oid = p.pronamespace
        ORDER BY f.function_id
    LOOP
        v_function := format('%I.%I', r.nspname, r.proname);
        v_numbers := array_append(v_numbers, r.function_id);
        FOR d IN 1 .. 2 LOOP
            v_call := CASE
                WHEN r.set_form THEN format('(farwrite.set_outputs(%L, %s(ARRAY[%s]%s), 1))[1]', r.signature, v_function,
                    c_bodies[d], CASE WHEN r.takes_meta THEN ', ARRAY[' || c_metas[d] || ']' ELSE '' END)
                ELSE format('%s(%s%s)', v_function, c_bodies[d], CASE WHEN r.takes_meta THEN ', ' || c_metas[d] ELSE '' END)
            END;
            v_call := CASE
                WHEN r.set_form THEN c_outputs[d] || v_call
                WHEN r.prorettype = 'void'::regtype THEN 'PERFORM ' || v_call
                WHEN r.prorettype = ANY ('{json,jsonb,integer,bigint}'::regtype[]) THEN c_outputs[d] || v_call || '::text'
                ELSE c_outputs[d] || 'to_json(' || v_call || ')::text'
            END;
            IF d = 1 THEN
                v_calls := array_append(v_calls, v_call);
            ELSE
                v_batch_calls := array_append(v_batch_calls, v_call);
            END IF;
        END LOOP;
        IF r.set_form THEN
            v_set_numbers := array_append(v_set_numbers, r.function_id);
            v_set_calls := array_append(v_set_calls, format('RETURN farwrite.set_outputs(%L, %s(p_bodies%s), cardinality(p_bodies))',
                r.signature, v_function, CASE WHEN r.takes_meta THEN ', p_metas' ELSE '' END));
        END IF;
    END LOOP;
    EXECUTE format($dispatcher$
        CREATE OR REPLACE FUNCTION farwrite.call(
            p_function integer, p_body jsonb, p_id uuid, p_name text, p_version integer, p_key text, p_origin text,
            p_sequence bigint, p_at bigint) RETURNS text
        LANGUAGE plpgsql AS $body$
        BEGIN
            %s
            RETURN NULL;
        END $body$ $dispatcher$, farwrite.choose_call('p_function', v_numbers, v_calls));
    -- What a command may leave behind that the next one must not meet is put back after each.
    EXECUTE format($dispatcher$
        CREATE OR REPLACE FUNCTION farwrite.call_all(
            p_functions integer[], p_ids uuid[], p_names text[], p_versions integer[], p_keys text[], p_origins text[],
            p_sequences bigint[], p_at bigint[], p_bodies bytea, p_starts integer[], INOUT answers text[])
        LANGUAGE plpgsql AS $body$
        BEGIN
            FOR j IN 1 .. cardinality(p_functions) LOOP
                %s
                SET CONSTRAINTS ALL IMMEDIATE;
                RESET ROLE;
                RESET ALL;
            END LOOP;
        END $body$ $dispatcher$, farwrite.choose_call('p_functions[j]', v_numbers, v_batch_calls));
    -- farwrite.run says what this does.
    EXECUTE format($dispatcher$
        CREATE OR REPLACE FUNCTION farwrite.call_guarded(
            p_group integer, p_functions integer[], p_ids uuid[], p_names text[], p_versions integer[], p_keys text[],
            p_origins text[], p_sequences bigint[], p_at bigint[], p_bodies bytea, p_starts integer[],
            p_expires bigint[], p_contexts text[], INOUT outcomes text[], INOUT answers text[], OUT done integer)
        LANGUAGE plpgsql AS $body$
        DECLARE
            c_subtransactions CONSTANT integer := 60;
            v_count   integer := cardinality(p_ids);
            v_context boolean := cardinality(p_contexts) > 0;
            v_expires boolean := cardinality(p_expires) > 0;
            v_budget  integer := c_subtransactions;
            -- Half of the subtransactions are enough for all commands while none is refused.
            v_group_max integer := greatest(p_group, 2 * v_count / c_subtransactions);
            v_group   integer := p_group;
            v_running integer;
            v_refused integer;
            v_last    integer;
            v_before  text[];
            v_state   text;
            v_message text;
            v_constraint text;
            v_schema  text;
            v_code    text;
            -- The constraints that may be deferred, and whether there are triggers that may; looked up once
            -- there is a refusal.
            v_deferrable text[];
            v_triggers boolean;
        BEGIN
            done := 0;
            WHILE done < v_count AND v_budget > 0 LOOP
                v_budget := v_budget - 1;
                v_refused := 0;
                v_last := least(done + v_group, v_count);
                v_before := outcomes[done + 1 : v_last];
                BEGIN
                    FOR j IN done + 1 .. v_last LOOP
                        CONTINUE WHEN outcomes[j] IS NOT NULL;
                        v_running := j;
                        IF v_expires AND p_expires[j] <= extract(epoch FROM clock_timestamp()) * 1e9 THEN
                            outcomes[j] := 'expired';
                            CONTINUE;
                        END IF;
                        IF v_context THEN
                            PERFORM set_config('farwrite.context', coalesce(p_contexts[j], ''), true);
                        END IF;
                        %s
                        outcomes[j] := 'applied';
                        SET CONSTRAINTS ALL IMMEDIATE;
                        RESET ROLE;
                        RESET ALL;
                    END LOOP;
                    done := v_last;
                    v_group := least(v_group * 2, v_group_max);
                EXCEPTION WHEN OTHERS THEN
                    GET STACKED DIAGNOSTICS v_state = RETURNED_SQLSTATE, v_message = MESSAGE_TEXT,
                        v_constraint = CONSTRAINT_NAME, v_schema = SCHEMA_NAME, v_code = PG_DATATYPE_NAME;
                    IF v_triggers IS NULL THEN
                        SELECT array_agg(c.conname::text) FILTER (WHERE c.contype <> 't'), coalesce(bool_or(c.contype = 't'), false)
                        INTO v_deferrable, v_triggers
                        FROM pg_catalog.pg_constraint c WHERE c.condeferrable;
                    END IF;
                    -- What violates Farwrite's own tables is never a command's fault. And a constraint that
                    -- may be deferred was perhaps checked too early, for its companions' sake: only the
                    -- lone run is definitive. A trigger refuses with a code of its own choice.
                    IF v_schema = 'farwrite' OR NOT farwrite.is_own_fault(v_state)
                        OR v_triggers OR v_constraint = ANY (v_deferrable)
                    THEN
                        RAISE;
                    END IF;
                    v_refused := v_running;
                    v_group := greatest(v_group / 2, 2);
                END;
                CONTINUE WHEN v_refused = 0;

                -- What came before it in its group is undone with it, and done again plain: it succeeded a
                -- moment ago. What comes after it was not reached.
                outcomes[done + 1 : v_last] := v_before;
                FOR j IN done + 1 .. v_refused - 1 LOOP
                    CONTINUE WHEN outcomes[j] IS NOT NULL;
                    IF v_expires AND p_expires[j] <= extract(epoch FROM clock_timestamp()) * 1e9 THEN
                        outcomes[j] := 'expired';
                        answers[j] := NULL;
                        CONTINUE;
                    END IF;
                    IF v_context THEN
                        PERFORM set_config('farwrite.context', coalesce(p_contexts[j], ''), true);
                    END IF;
                    answers[j] := farwrite.call(p_functions[j], farwrite.body(p_bodies, p_starts, j),
                        p_ids[j], p_names[j], p_versions[j], p_keys[j], p_origins[j], p_sequences[j], p_at[j]);
                    outcomes[j] := 'applied';
                    SET CONSTRAINTS ALL IMMEDIATE;
                    RESET ROLE;
                    RESET ALL;
                END LOOP;
                outcomes[v_refused] := 'rejected';
                answers[v_refused] := json_strip_nulls(json_build_object(
                    'code', CASE WHEN v_state = 'P0001' THEN coalesce(nullif(v_code, ''), v_state) ELSE v_state END,
                    'message', v_message, 'constraint', nullif(v_constraint, '')));
                done := v_refused;
            END LOOP;
        END $body$ $dispatcher$, farwrite.choose_call('p_functions[j]', v_numbers, v_batch_calls));
    EXECUTE format($dispatcher$
        CREATE OR REPLACE FUNCTION farwrite.call_set(p_function integer, p_bodies jsonb[], p_metas farwrite.meta[]) RETURNS text[]
        LANGUAGE plpgsql AS $body$
        BEGIN
            %s
            RETURN NULL;
        END $body$ $dispatcher$, farwrite.choose_call('p_function', v_set_numbers, v_set_calls));
END $$;
