-- Has parked commands tried at once, with what waits before them in their key queues; scheduled ones
-- before their time. Answers how many of them were parked.
CREATE OR REPLACE FUNCTION farwrite.release(p_stream integer, p_sequences bigint[], p_reason text) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    v_count integer;
BEGIN
    PERFORM farwrite.hold_lanes();
    UPDATE farwrite.parked SET due_at = clock_timestamp()
    WHERE stream_id = p_stream AND sequence = ANY (p_sequences) AND place IS NULL;
    UPDATE farwrite.key_queues l SET due_at = clock_timestamp()
    FROM farwrite.parked p
    WHERE p.stream_id = p_stream AND p.sequence = ANY (p_sequences) AND p.place IS NOT NULL
      AND l.stream_id = p.stream_id AND l.key_queue = p.key_queue;
    WITH noted AS (
        INSERT INTO farwrite.operations (act, stream_id, sequence, command_id, subject, reason)
        SELECT 'release', p.stream_id, p.sequence, p.command_id, p.reason, p_reason
        FROM farwrite.parked p WHERE p.stream_id = p_stream AND p.sequence = ANY (p_sequences) RETURNING 1
    )
    SELECT count(*) INTO v_count FROM noted;
    RETURN v_count;
END $$;
