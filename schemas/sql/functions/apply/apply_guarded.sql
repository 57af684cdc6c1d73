-- Applies function commands of which some may be refused, in one statement: see farwrite.call_guarded
-- for p_group and what becomes of a refused one. The lane's position stops at the last command that
-- was settled, and done says how many were; repeated says which of them the ledger knew. Nothing is
-- changed, and done is null, where the lane is not where it is said to be, one of the ids is parked, or
-- something of the lane is parked or paused: then the batch is staged.
-- Composites are assigned and not selected: an assignment sets no query up.
CREATE OR REPLACE FUNCTION farwrite.apply_guarded(
    p_stream integer, p_lane integer, p_epoch uuid, p_from bigint, p_to bigint, p_to_at bigint,
    p_to_id uuid, p_at bigint[], p_ids uuid[], p_fingerprints uuid[], p_sequences bigint[], p_functions integer[],
    p_names text[], p_versions integer[], p_keys text[], p_origins text[], p_bodies bytea, p_starts integer[],
    p_expires bigint[], p_contexts text[], p_group integer, p_unconfirmed boolean[],
    OUT done integer, OUT outcomes text[], OUT answers text[], OUT repeated boolean[])
LANGUAGE plpgsql AS $$
DECLARE
    v_count integer := cardinality(p_ids);
    v_known record;
    v_ran   record;
    v_new   text[];
BEGIN
    -- The fence comes first, as in farwrite.apply_plain.
    PERFORM FROM farwrite.lanes l
    WHERE l.stream_id = p_stream AND l.lane = p_lane AND l.epoch = p_epoch AND l.sequence = p_from
      AND l.parked = 0 AND NOT l.paused
    FOR NO KEY UPDATE;
    IF NOT FOUND OR farwrite.is_any_parked(p_ids) THEN
        RETURN;
    END IF;

    v_known := farwrite.known(p_ids, p_fingerprints);
    v_ran := farwrite.call_guarded(p_group, p_functions, p_ids, p_names, p_versions, p_keys, p_origins, p_sequences,
        p_at, p_bodies, p_starts, p_expires, p_contexts, v_known.outcomes, v_known.answers);
    done := v_ran.done;
    outcomes := v_ran.outcomes;
    answers := v_ran.answers;
    UPDATE farwrite.lanes
    SET sequence = CASE WHEN done < v_count THEN p_sequences[done] ELSE p_to END,
        sequence_at = CASE WHEN done < v_count THEN p_at[done] ELSE p_to_at END,
        sequence_id = CASE WHEN done < v_count THEN p_ids[done] ELSE p_to_id END
    WHERE stream_id = p_stream AND lane = p_lane;

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
    PERFORM farwrite.record(p_stream, p_ids, p_fingerprints, p_sequences, p_at, '{}', v_new, answers, p_unconfirmed);
    IF pg_column_size(answers) > 4194304 THEN
        answers := farwrite.shortened(answers, outcomes);
    END IF;
END $$;
