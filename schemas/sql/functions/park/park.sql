-- Parks commands, in the given order: each at the end of its key queue. One with a time in
-- p_scheduled (nanoseconds since 1970) is outside of its key queue until then. p_waits (seconds) says
-- when a key queue that is new is tried; null for when an operator resumes it. The caller holds the
-- lane's row.
CREATE OR REPLACE FUNCTION farwrite.park(
    p_stream integer, p_lane integer, p_sequences bigint[], p_ids uuid[], p_fingerprints uuid[], p_names text[],
    p_versions integer[], p_keys text[], p_key_queues text[], p_lane_hashes bigint[], p_subjects text[], p_headers text[],
    p_bodies bytea[], p_at bigint[], p_reasons text[], p_errors text[], p_attempts integer[],
    p_scheduled bigint[], p_waits double precision[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    WITH new AS (
        SELECT u.*, row_number() OVER (PARTITION BY u.key_queue, u.scheduled IS NULL ORDER BY u.n) AS step,
               count(*) OVER (PARTITION BY u.key_queue, u.scheduled IS NULL) AS steps
        FROM unnest(p_sequences, p_ids, p_fingerprints, p_names, p_versions, p_keys, p_key_queues, p_lane_hashes, p_subjects,
                    p_headers, p_bodies, p_at, p_reasons, p_errors, p_attempts, p_scheduled, p_waits) WITH ORDINALITY
            AS u (sequence, id, fingerprint, name, version, order_key, key_queue, lane_hash, subject,
                  headers, body, at, reason, error, attempts, scheduled, wait, n)
    ), queues AS (
        INSERT INTO farwrite.key_queues AS l (stream_id, key_queue, lane_hash, commands, last_place, due_at)
        SELECT p_stream, key_queue, lane_hash, steps, steps, coalesce(clock_timestamp() + make_interval(secs => wait), 'infinity')
        FROM new WHERE scheduled IS NULL AND step = 1
        ON CONFLICT (stream_id, key_queue) DO UPDATE
        SET commands = l.commands + excluded.commands, last_place = l.last_place + excluded.commands
        RETURNING l.key_queue, l.last_place
    )
    INSERT INTO farwrite.parked (stream_id, sequence, command_id, fingerprint, name, version, order_key, key_queue, lane_hash,
        place, due_at, reason, error, attempts, subject, headers, body, published_at)
    SELECT p_stream, n.sequence, n.id, n.fingerprint, n.name, n.version, n.order_key, n.key_queue, n.lane_hash,
           CASE WHEN n.scheduled IS NULL THEN l.last_place - n.steps + n.step END,
           to_timestamp(n.scheduled / 1e9),
           n.reason, n.error::json, n.attempts, n.subject, n.headers::json, n.body, n.at
    FROM new n LEFT JOIN queues l USING (key_queue);
    UPDATE farwrite.lanes SET parked = parked + cardinality(p_sequences) WHERE stream_id = p_stream AND lane = p_lane;
END $$;
