-- A batch's bodies as one value and not as an array of texts: PostgreSQL copies an array apart when it
-- receives it and again when a function reads it, and gives the memory back after each batch. Measured, of
-- a batch of 256 bodies of 2 kB: the array was a twelfth of what PostgreSQL did. The functions that take an
-- array stay for workers of the version before.

-- The body of a command of a batch: p_starts says where each begins, from 1, and after the last where it
-- ends.
CREATE FUNCTION farwrite.body(p_bodies bytea, p_starts integer[], p_place integer) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE
RETURN convert_from(substring(p_bodies, p_starts[p_place], p_starts[p_place + 1] - p_starts[p_place]), 'UTF8')::jsonb;

-- As the one that takes an array of bodies, which says what it does.
CREATE FUNCTION farwrite.run(
    p_group integer, p_functions integer[], p_set_forms boolean[], p_ids uuid[], p_names text[], p_versions integer[],
    p_keys text[], p_origins text[], p_sequences bigint[], p_at bigint[], p_bodies bytea, p_starts integer[],
    p_expires bigint[], p_contexts text[],
    INOUT outcomes text[], INOUT answers text[], OUT done integer)
LANGUAGE plpgsql AS $$
DECLARE
    c_subtransactions CONSTANT integer := 60;
    c_group_max CONSTANT integer := 32;
    v_count   integer := cardinality(p_ids);
    v_budget  integer := c_subtransactions;
    v_group   integer := p_group;
    v_deferrable boolean;
    v_running integer;
    v_plain_to integer := CASE WHEN p_group = 0 THEN cardinality(p_ids) ELSE 0 END;
    v_context boolean := cardinality(p_contexts) > 0;
    v_expires boolean := cardinality(p_expires) > 0;
    v_last    integer;
    i         integer := 0;
    v_before  text[];
    v_bodies  jsonb[];
    v_metas   farwrite.meta[];
    v_outputs text[];
    v_state   text;
    v_message text;
    v_constraint text;
    v_schema  text;
    v_code    text;
BEGIN
    -- Most often there is nothing to look at but the functions.
    IF p_group = 0 AND v_count > 1 AND NOT v_expires AND NOT v_context AND cardinality(p_set_forms) = 0
        AND array_remove(outcomes, NULL) = '{}'
    THEN
        FOR j IN 1 .. v_count LOOP
            answers[j] := farwrite.call(p_functions[j], farwrite.body(p_bodies, p_starts, j),
                p_ids[j], p_names[j], p_versions[j], p_keys[j], p_origins[j], p_sequences[j], p_at[j]);
            SET CONSTRAINTS ALL IMMEDIATE;
            RESET ROLE;
            RESET ALL;
        END LOOP;
        outcomes := array_fill('applied'::text, ARRAY[v_count]);
        i := v_count;
    END IF;

    WHILE i < v_count AND (i < v_plain_to OR v_budget > 0) LOOP
        IF i < v_plain_to THEN
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
                WHILE v_last < v_plain_to AND p_functions[v_last + 1] = p_functions[i]
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
            CONTINUE;
        END IF;

        v_last := least(i + v_group, v_count);
        v_before := outcomes[i + 1 : v_last];
        v_budget := v_budget - 1;
        BEGIN
            FOR j IN i + 1 .. v_last LOOP
                CONTINUE WHEN outcomes[j] IS NOT NULL;
                v_running := j;
                IF v_expires AND p_expires[j] <= extract(epoch FROM clock_timestamp()) * 1e9 THEN
                    outcomes[j] := 'expired';
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
            i := v_last;
            v_group := least(v_group * 2, c_group_max);
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS v_state = RETURNED_SQLSTATE, v_message = MESSAGE_TEXT,
                v_constraint = CONSTRAINT_NAME, v_schema = SCHEMA_NAME, v_code = PG_DATATYPE_NAME;
            v_deferrable := coalesce(v_deferrable, EXISTS (SELECT FROM pg_catalog.pg_constraint c WHERE c.condeferrable));
            -- What violates Farwrite's own tables is never a command's fault. And a constraint that
            -- may be deferred was perhaps checked too early, for its companions' sake: only the
            -- lone run is definitive. A trigger refuses with whatever code it likes.
            IF v_schema = 'farwrite' OR NOT farwrite.is_own_fault(v_state)
                OR (v_deferrable
                    AND EXISTS (SELECT FROM pg_catalog.pg_constraint c
                                WHERE c.condeferrable AND (c.contype = 't' OR c.conname = v_constraint)))
            THEN
                RAISE;
            END IF;
            -- What came before it in its group is undone with it, and done again plain: it
            -- succeeded a moment ago. What comes after it was not reached.
            FOR j IN i + 1 .. v_last LOOP
                outcomes[j] := v_before[j - i];
            END LOOP;
            outcomes[v_running] := 'rejected';
            answers[v_running] := json_strip_nulls(json_build_object(
                'code', CASE WHEN v_state = 'P0001' THEN coalesce(nullif(v_code, ''), v_state) ELSE v_state END,
                'message', v_message, 'constraint', nullif(v_constraint, '')));
            v_plain_to := v_running;
            v_group := greatest(v_group / 2, 2);
        END;
    END LOOP;
    PERFORM pg_advisory_unlock_all();
    done := i;
END $$;

-- As the one that takes an array of bodies, which says what it does.
CREATE FUNCTION farwrite.apply(
    p_stream integer, p_lane integer, p_epoch uuid, p_from bigint, p_to bigint, p_to_at bigint,
    p_at bigint[], p_group integer,
    p_ids uuid[], p_fingerprints uuid[], p_sequences bigint[], p_functions integer[], p_set_forms boolean[],
    p_names text[], p_versions integer[], p_keys text[], p_origins text[], p_bodies bytea, p_starts integer[],
    p_expires bigint[], p_contexts text[],
    OUT done integer, OUT outcomes text[], OUT answers text[], OUT repeated boolean[])
LANGUAGE plpgsql AS $$
DECLARE
    v_count integer := cardinality(p_ids);
    v_lane  record;
    v_known record;
    v_run   record;
    v_new   text[];
BEGIN
    v_lane := farwrite.fence(p_stream, p_lane, p_epoch, p_from, p_to, p_to_at,
        p_sequences[v_count], p_at[v_count], p_ids[v_count]::text);
    IF v_lane.parked > 0 OR v_lane.paused THEN
        RAISE EXCEPTION 'commands of lane % are parked or paused', p_lane USING ERRCODE = 'FW004', SCHEMA = 'farwrite';
    END IF;

    v_known := farwrite.known(p_ids, p_fingerprints);
    v_run := farwrite.run(p_group, p_functions, p_set_forms, p_ids, p_names, p_versions, p_keys, p_origins, p_sequences,
        p_at, p_bodies, p_starts, p_expires, p_contexts, v_known.outcomes, v_known.answers);
    done := v_run.done;
    outcomes := v_run.outcomes;
    answers := v_run.answers;
    IF done < v_count THEN
        UPDATE farwrite.lanes
        SET sequence = p_sequences[done], sequence_at = p_at[done],
            anchor_sequence = p_sequences[done], anchor_at = p_at[done], anchor_id = p_ids[done]::text
        WHERE stream_id = p_stream AND lane = p_lane;
    END IF;

    -- What was not reached is null already, and what is repeated must not be recorded again.
    v_new := outcomes;
    repeated := array_fill(false, ARRAY[v_count]);
    IF array_remove(v_known.outcomes, NULL) <> '{}' THEN
        FOR j IN 1 .. v_count LOOP
            IF v_known.outcomes[j] IS NOT NULL THEN
                repeated[j] := true;
                v_new[j] := NULL;
            END IF;
        END LOOP;
    END IF;
    PERFORM farwrite.record(p_stream, p_ids, p_fingerprints, p_sequences, p_at, '{}', v_new, answers);
END $$;

-- As before; but the outcome that nearly all have is not looked up by its name for each of them.
CREATE OR REPLACE FUNCTION farwrite.record(
    p_stream integer, p_ids uuid[], p_fingerprints uuid[], p_sequences bigint[], p_at bigint[],
    p_attempts integer[], p_outcomes text[], p_answers text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_recorded bigint;
BEGIN
    INSERT INTO farwrite.ledger (command_id, outcome, answer, fingerprint, stream_id, sequence, attempts, published_at)
    SELECT i.id, CASE i.outcome WHEN 'applied' THEN 'applied' ELSE i.outcome::farwrite.outcome END, i.answer::json, i.fingerprint, p_stream, i.sequence,
           coalesce(i.attempts, 1), to_timestamp(i.at / 1e9::float8)
    FROM unnest(p_ids, p_fingerprints, p_sequences, p_at, p_attempts, p_outcomes, p_answers)
        AS i (id, fingerprint, sequence, at, attempts, outcome, answer)
    WHERE i.outcome IS NOT NULL AND farwrite.is_dated(i.id);
    GET DIAGNOSTICS v_recorded = ROW_COUNT;
    IF v_recorded < cardinality(p_ids) THEN
        INSERT INTO farwrite.ledger_derived (command_id, outcome, answer, fingerprint, stream_id, sequence, attempts, published_at)
        SELECT i.id, i.outcome::farwrite.outcome, i.answer::json, i.fingerprint, p_stream, i.sequence,
               coalesce(i.attempts, 1), to_timestamp(i.at / 1e9::float8)
        FROM unnest(p_ids, p_fingerprints, p_sequences, p_at, p_attempts, p_outcomes, p_answers)
            AS i (id, fingerprint, sequence, at, attempts, outcome, answer)
        WHERE i.outcome IS NOT NULL AND NOT farwrite.is_dated(i.id);
    END IF;
END $$;
