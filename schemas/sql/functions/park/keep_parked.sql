-- Keeps commands that were tried, or could not be yet, where they are: at the front of their key
-- queues. p_waits (seconds) says when the key queue is tried again; null for when an operator resumes
-- it. The caller holds the lane's row.
CREATE OR REPLACE FUNCTION farwrite.keep_parked(
    p_stream integer, p_sequences bigint[], p_reasons text[], p_errors text[], p_attempts integer[],
    p_waits double precision[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog SET enable_seqscan = off AS $$
BEGIN
    WITH kept AS (
        UPDATE farwrite.parked p
        SET reason = u.reason, error = coalesce(u.error::json, p.error), attempts = u.attempts,
            lacks_since = CASE WHEN p.reason IN ('unknown_command', 'not_ready', 'behind') THEN p.lacks_since ELSE clock_timestamp() END
        FROM unnest(p_sequences, p_reasons, p_errors, p_attempts, p_waits) AS u (sequence, reason, error, attempts, wait)
        WHERE p.stream_id = p_stream AND p.sequence = u.sequence
        RETURNING p.key_queue, u.wait
    )
    UPDATE farwrite.key_queues l
    SET due_at = coalesce(clock_timestamp() + make_interval(secs => k.wait), 'infinity')
    FROM kept k WHERE l.stream_id = p_stream AND l.key_queue = k.key_queue;
END $$;
