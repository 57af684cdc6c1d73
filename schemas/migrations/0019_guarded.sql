-- A batch of which a command may be refused is run in subtransactions. PL/pgSQL keeps what evaluates an expression
-- from one time to the next, but for one that an error went through: until the transaction's end that one is
-- set up anew for each command, and so is the app's function behind it. There were two such, one in farwrite.run and
-- one in the dispatcher it called; and what looked at constraints was planned anew for each refusal. Now the
-- subtransactions' loop has the functions in it, as the plain one has, and constraints are looked up once: of 53
-- microseconds for a command of 256 bytes where half are refused 40 are left (27 where none is). Of the rest 4 are the
-- one expression that an error still goes through; subtransactions and errors by themselves are one or two. Since they
-- are that cheap, eight commands of 256 share one at most, not 32: what a refusal undoes is done again. A batch of which
-- none is refused then takes 32 transaction ids, as 32 single commands would; one that is refused before it wrote takes none.

-- Whoever registers a function now makes the dispatchers after this has.
SELECT pg_advisory_xact_lock(hashtext('farwrite.functions'));

-- Statements that find the call for a function's number, of which p_numbers has the known ones in order: some
-- are compared one after the other, many are halved until they are some.
CREATE FUNCTION farwrite.choose_call(p_number text, p_numbers integer[], p_calls text[]) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog AS $$
DECLARE
    v_half integer := cardinality(p_numbers) / 2;
BEGIN
    IF v_half > 4 THEN
        RETURN format(E'IF %s < %s THEN\n%s\nELSE\n%s\nEND IF;', p_number, p_numbers[v_half + 1],
            farwrite.choose_call(p_number, p_numbers[: v_half], p_calls[: v_half]),
            farwrite.choose_call(p_number, p_numbers[v_half + 1 :], p_calls[v_half + 1 :]));
    END IF;
    RETURN format(E'CASE %1$s\nWHEN 0 THEN NULL;\n%2$sELSE\n    RAISE EXCEPTION %3$L, %1$s USING ERRCODE = %4$L, SCHEMA = %5$L;\nEND CASE;',
        p_number,
        (SELECT string_agg(format(E'WHEN %s THEN %s;\n', u.number, u.call), '' ORDER BY u.number)
         FROM unnest(p_numbers, p_calls) AS u (number, call)),
        'no function is registered under number %', 'FW003', 'farwrite');
END $$;

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
                    -- lone run is definitive. A trigger refuses with whatever code it likes.
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

SELECT farwrite.make_dispatcher();

-- Runs function commands in order, as the one that takes an array of bodies says: plain, or (p_group > 0) in
-- farwrite.call_guarded, which has the functions in its loop, in subtransactions of p_group commands at first,
-- fewer while they fail, and up to p_group, or a thirtieth of a large batch, while they succeed.
CREATE OR REPLACE FUNCTION farwrite.run(
    p_group integer, p_functions integer[], p_set_forms boolean[], p_ids uuid[], p_names text[], p_versions integer[],
    p_keys text[], p_origins text[], p_sequences bigint[], p_at bigint[], p_bodies bytea, p_starts integer[],
    p_expires bigint[], p_contexts text[],
    INOUT outcomes text[], INOUT answers text[], OUT done integer)
LANGUAGE plpgsql AS $$
DECLARE
    v_count   integer := cardinality(p_ids);
    v_context boolean := cardinality(p_contexts) > 0;
    v_expires boolean := cardinality(p_expires) > 0;
    v_last    integer;
    i         integer := 0;
    v_bodies  jsonb[];
    v_metas   farwrite.meta[];
    v_outputs text[];
    v_guarded record;
BEGIN
    IF p_group > 0 THEN
        v_guarded := farwrite.call_guarded(p_group, p_functions, p_ids, p_names, p_versions, p_keys, p_origins, p_sequences,
            p_at, p_bodies, p_starts, p_expires, p_contexts, outcomes, answers);
        outcomes := v_guarded.outcomes;
        answers := v_guarded.answers;
        i := v_guarded.done;
    -- Most often there is nothing to look at but the functions.
    ELSIF v_count > 1 AND NOT v_expires AND NOT v_context AND cardinality(p_set_forms) = 0
        AND array_remove(outcomes, NULL) = '{}'
    THEN
        answers := farwrite.call_all(p_functions, p_ids, p_names, p_versions, p_keys, p_origins, p_sequences, p_at,
            p_bodies, p_starts, answers);
        outcomes := array_fill('applied'::text, ARRAY[v_count]);
        i := v_count;
    END IF;

    WHILE p_group = 0 AND i < v_count LOOP
        i := i + 1;
        CONTINUE WHEN outcomes[i] IS NOT NULL;
        IF v_expires AND p_expires[i] <= extract(epoch FROM clock_timestamp()) * 1e9 THEN
            outcomes[i] := 'expired';
            CONTINUE;
        END IF;
        IF p_set_forms[i] AND NOT v_context THEN
            -- Everything that follows and is the same function goes into one call.
            v_last := i;
            v_bodies := ARRAY[farwrite.body(p_bodies, p_starts, i)];
            v_metas := ARRAY[ROW(p_ids[i], p_names[i], p_versions[i], p_keys[i], p_origins[i], p_sequences[i],
                to_timestamp(p_at[i] / 1e9))::farwrite.meta];
            WHILE v_last < v_count AND p_functions[v_last + 1] = p_functions[i]
                AND outcomes[v_last + 1] IS NULL AND p_expires[v_last + 1] IS NULL
            LOOP
                v_last := v_last + 1;
                v_bodies := array_append(v_bodies, farwrite.body(p_bodies, p_starts, v_last));
                v_metas := array_append(v_metas, ROW(p_ids[v_last], p_names[v_last], p_versions[v_last], p_keys[v_last],
                    p_origins[v_last], p_sequences[v_last], to_timestamp(p_at[v_last] / 1e9))::farwrite.meta);
            END LOOP;
            v_outputs := farwrite.call_set(p_functions[i], v_bodies, v_metas);
            FOR j IN i .. v_last LOOP
                outcomes[j] := 'applied';
                answers[j] := v_outputs[j - i + 1];
            END LOOP;
            i := v_last;
        ELSE
            IF v_context THEN
                PERFORM set_config('farwrite.context', coalesce(p_contexts[i], ''), true);
            END IF;
            answers[i] := farwrite.call(p_functions[i], farwrite.body(p_bodies, p_starts, i),
                p_ids[i], p_names[i], p_versions[i], p_keys[i], p_origins[i], p_sequences[i], p_at[i]);
            outcomes[i] := 'applied';
        END IF;
        IF v_count > 1 THEN
            SET CONSTRAINTS ALL IMMEDIATE;
        END IF;
        RESET ROLE;
        RESET ALL;
    END LOOP;
    PERFORM pg_advisory_unlock_all();
    done := i;
END $$;
