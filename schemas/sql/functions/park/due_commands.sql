-- The commands of a lane that are to be tried now: the fronts of the key queues that are due, the
-- longest due one first. They are at most p_limit, and about p_bytes, shared between the key queues.
-- Scheduled commands enter their key queues first. lacks_seconds is how long each has waited for
-- something that is not there, or behind others; time that it waited for its schedule, for an
-- operator, or by chance does not count.
CREATE OR REPLACE FUNCTION farwrite.due_commands(
    p_stream integer, p_lane integer, p_lanes integer, p_epoch uuid, p_limit integer, p_bytes bigint)
RETURNS TABLE (sequence bigint, reason text, attempts integer, lacks_seconds double precision, subject text, headers json, body bytea, published_at bigint)
LANGUAGE plpgsql SET search_path = pg_catalog SET enable_seqscan = off AS $$
DECLARE
    v_key_queues text[];
BEGIN
    PERFORM FROM farwrite.lanes l
        WHERE l.stream_id = p_stream AND l.lane = p_lane AND l.epoch = p_epoch FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'lane % of stream % is not under epoch %', p_lane, p_stream, p_epoch
            USING ERRCODE = 'FW001', SCHEMA = 'farwrite', HINT = 'Another worker has taken over this database.';
    END IF;
    PERFORM farwrite.bring_due(p_stream, p_lane, p_lanes, p_limit);
    SELECT array_agg(d.key_queue ORDER BY d.due_at) INTO v_key_queues
    FROM (SELECT l.key_queue, l.due_at FROM farwrite.key_queues l
          WHERE l.stream_id = p_stream AND l.due_at <= clock_timestamp() AND l.lane_hash % p_lanes = p_lane
          ORDER BY l.due_at LIMIT p_limit) d;
    RETURN QUERY
        SELECT c.sequence, c.reason, c.attempts,
               CASE WHEN c.reason IN ('unknown_command', 'not_ready', 'behind')
                    THEN extract(epoch FROM clock_timestamp() - c.lacks_since) ELSE 0 END::double precision,
               c.subject, c.headers, c.body, c.published_at
        FROM (SELECT p.*, u.n, sum(octet_length(p.body)) OVER (ORDER BY p.step, u.n) - octet_length(p.body) AS before
              FROM unnest(v_key_queues) WITH ORDINALITY AS u (key_queue, n)
              CROSS JOIN LATERAL (
                  SELECT q.*, row_number() OVER (ORDER BY q.place) AS step FROM farwrite.parked q
                  WHERE q.stream_id = p_stream AND q.key_queue = u.key_queue AND q.place IS NOT NULL
                  ORDER BY q.place LIMIT greatest(1, p_limit / cardinality(v_key_queues))) p) c
        WHERE c.before < p_bytes
        ORDER BY c.n, c.place;
END $$;
