-- Takes commands out of their key queues (or out of the schedule): they are settled. What waits
-- behind them is due at once, behind the other key queues that are. The caller holds the lane's row.
CREATE OR REPLACE FUNCTION farwrite.unpark(p_stream integer, p_lane integer, p_sequences bigint[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog SET enable_seqscan = off AS $$
DECLARE
    v_gone bigint;
BEGIN
    WITH gone AS (
        DELETE FROM farwrite.parked WHERE stream_id = p_stream AND sequence = ANY (p_sequences)
        RETURNING key_queue, place
    ), counts AS (
        SELECT key_queue, count(*) AS n FROM gone WHERE place IS NOT NULL GROUP BY key_queue
    ), shorter AS (
        UPDATE farwrite.key_queues l SET commands = l.commands - c.n, due_at = clock_timestamp()
        FROM counts c WHERE l.stream_id = p_stream AND l.key_queue = c.key_queue
    )
    SELECT count(*) INTO v_gone FROM gone;
    DELETE FROM farwrite.key_queues WHERE stream_id = p_stream AND commands = 0;
    UPDATE farwrite.lanes SET parked = parked - v_gone WHERE stream_id = p_stream AND lane = p_lane;
END $$;
