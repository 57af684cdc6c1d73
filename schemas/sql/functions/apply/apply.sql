-- A batch of function commands in one statement; FW004 where something of the lane is parked or
-- paused, since then it must be sorted first. See farwrite.run for the arrays and p_group; the
-- lane's position stops at the last command that was settled. repeated says which the ledger knew.
-- Composites are assigned and not selected: an assignment sets no query up.
CREATE OR REPLACE FUNCTION farwrite.apply(
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
