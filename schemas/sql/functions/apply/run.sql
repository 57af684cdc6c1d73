-- Runs function commands in order: those that have no outcome yet. Between commands it puts
-- settings, role and session locks back, and checks what was deferred, so that nothing of one
-- command meets another; for a single command the commit does that.
--
-- p_group = 0 runs them plain: the first one that fails fails the batch. p_group > 0 runs them in
-- subtransactions, in farwrite.call_guarded: of p_group commands at first, fewer while they fail, and
-- up to p_group, or a thirtieth of a large batch, while they succeed. A command's own fault becomes
-- its rejection; everything else still fails the batch. At most 60 subtransactions are used, since
-- more than 64 in one transaction slow down every snapshot, on standbys too: then it stops early, and
-- done says how many were settled.
--
-- The arrays are parallel. p_set_forms, p_expires (nanoseconds since 1970) and p_contexts may be
-- empty: then nothing is in set form, expires, or has a context.
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
