-- What a lane must know from time to time: whether something of it is parked or paused, in how many
-- seconds the next is due (null where nothing is), and how often the registry has changed.
CREATE OR REPLACE FUNCTION farwrite.next_due(p_stream integer, p_lane integer, p_lanes integer, OUT parked bigint, OUT paused boolean, OUT seconds double precision, OUT registry bigint)
LANGUAGE sql STABLE SET search_path = pg_catalog SET enable_seqscan = off AS $$
    SELECT l.parked, l.paused, CASE WHEN l.parked > 0 THEN extract(epoch FROM least(
        (SELECT p.due_at FROM farwrite.key_queues p
         WHERE p.stream_id = p_stream AND p.lane_hash % p_lanes = p_lane AND p.due_at < 'infinity' ORDER BY p.due_at LIMIT 1),
        (SELECT p.due_at FROM farwrite.parked p
         WHERE p.stream_id = p_stream AND p.lane_hash % p_lanes = p_lane AND p.place IS NULL ORDER BY p.due_at LIMIT 1))
        - clock_timestamp())::double precision END,
        (SELECT changes FROM farwrite.registry)
    FROM farwrite.lanes l WHERE l.stream_id = p_stream AND l.lane = p_lane
$$;
