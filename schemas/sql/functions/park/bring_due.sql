-- Brings scheduled commands of a lane whose time has come to the ends of their key queues. The caller
-- holds the lane's row.
CREATE OR REPLACE FUNCTION farwrite.bring_due(p_stream integer, p_lane integer, p_lanes integer, p_limit integer) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog SET enable_seqscan = off AS $$
DECLARE
    v_brought integer;
BEGIN
    WITH due AS (
        SELECT p.sequence, p.key_queue, p.lane_hash,
               row_number() OVER (PARTITION BY p.key_queue ORDER BY p.due_at, p.sequence) AS step,
               count(*) OVER (PARTITION BY p.key_queue) AS steps
        FROM (SELECT sequence, key_queue, lane_hash, due_at FROM farwrite.parked
              WHERE stream_id = p_stream AND place IS NULL AND due_at <= clock_timestamp() AND lane_hash % p_lanes = p_lane
              ORDER BY due_at, sequence LIMIT p_limit) p
    ), queues AS (
        INSERT INTO farwrite.key_queues AS l (stream_id, key_queue, lane_hash, commands, last_place, due_at)
        SELECT p_stream, key_queue, lane_hash, steps, steps, clock_timestamp() FROM due WHERE step = 1
        ON CONFLICT (stream_id, key_queue) DO UPDATE
        SET commands = l.commands + excluded.commands, last_place = l.last_place + excluded.commands
        RETURNING l.key_queue, l.last_place
    ), brought AS (
        UPDATE farwrite.parked p SET place = l.last_place - d.steps + d.step, due_at = NULL, reason = 'due'
        FROM due d JOIN queues l USING (key_queue)
        WHERE p.stream_id = p_stream AND p.sequence = d.sequence
        RETURNING 1
    )
    SELECT count(*) INTO v_brought FROM brought;
    RETURN v_brought;
END $$;
