-- What the ledger knows of these ids. The bounds, the lowest and the highest, let the planner's
-- run-time pruning leave all partitions but one or two alone. A sequential scan, chosen while the
-- ledger was empty, would be kept by a cached plan as it grows: never here. Planned once a session.
CREATE OR REPLACE FUNCTION farwrite.look_up(p_ids uuid[])
RETURNS TABLE (command_id uuid, outcome farwrite.outcome, answer json, fingerprint uuid)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_dated   uuid[];
    v_derived uuid[];
BEGIN
    SELECT array_agg(i ORDER BY i) FILTER (WHERE farwrite.is_dated(i)), array_agg(i) FILTER (WHERE NOT farwrite.is_dated(i))
    INTO v_dated, v_derived
    FROM unnest(p_ids) AS i;
    IF v_dated IS NOT NULL THEN
        RETURN QUERY SELECT l.command_id, l.outcome, l.answer, l.fingerprint FROM farwrite.ledger l
            WHERE l.command_id = ANY (v_dated)
              AND l.command_id BETWEEN v_dated[1] AND v_dated[cardinality(v_dated)];
    END IF;
    IF v_derived IS NOT NULL THEN
        RETURN QUERY SELECT l.command_id, l.outcome, l.answer, l.fingerprint FROM farwrite.ledger_derived l
            WHERE l.command_id = ANY (v_derived);
    END IF;
END $$;
