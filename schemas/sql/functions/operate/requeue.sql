-- Puts dead letters at the ends of their key queues, with their ids; they are applied like any
-- command. The arrays are what the worker's program read from the letters. Answers how many.
CREATE OR REPLACE FUNCTION farwrite.requeue(
    p_stream integer, p_sequences bigint[], p_ids uuid[], p_fingerprints uuid[], p_names text[], p_versions integer[],
    p_keys text[], p_key_queues text[], p_lane_hashes bigint[], p_reason text) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    r record;
    v_count integer := 0;
BEGIN
    PERFORM farwrite.hold_lanes();
    -- An id's day may have been dropped since.
    PERFORM farwrite.make_ledger_days(t, t)
    FROM (SELECT DISTINCT date_trunc('day', farwrite.id_time(i), 'UTC') FROM unnest(p_ids) i WHERE farwrite.is_dated(i)) d (t);
    FOR r IN
        SELECT s.lanes, u.lane_hash % s.lanes AS lane,
               array_agg(d.sequence ORDER BY d.sequence) AS sequences, array_agg(u.id ORDER BY d.sequence) AS ids,
               array_agg(u.fingerprint ORDER BY d.sequence) AS fingerprints, array_agg(u.name ORDER BY d.sequence) AS names,
               array_agg(u.version ORDER BY d.sequence) AS versions, array_agg(u.order_key ORDER BY d.sequence) AS keys,
               array_agg(u.key_queue ORDER BY d.sequence) AS key_queues, array_agg(u.lane_hash ORDER BY d.sequence) AS hashes,
               array_agg(d.subject ORDER BY d.sequence) AS subjects, array_agg(d.headers::text ORDER BY d.sequence) AS headers,
               array_agg(d.body ORDER BY d.sequence) AS bodies,
               array_agg((extract(epoch FROM d.published_at) * 1e9)::bigint ORDER BY d.sequence) AS at
        FROM unnest(p_sequences, p_ids, p_fingerprints, p_names, p_versions, p_keys, p_key_queues, p_lane_hashes)
            AS u (sequence, id, fingerprint, name, version, order_key, key_queue, lane_hash)
        JOIN farwrite.dead_letters d ON d.stream_id = p_stream AND d.sequence = u.sequence
        JOIN farwrite.streams s ON s.stream_id = p_stream
        GROUP BY 1, 2
    LOOP
        PERFORM farwrite.park(p_stream, r.lane::integer, r.sequences, r.ids, r.fingerprints, r.names, r.versions, r.keys,
            r.key_queues, r.hashes, r.subjects, r.headers, r.bodies, r.at,
            array_fill('requeued'::text, ARRAY[cardinality(r.ids)]), array_fill(NULL::text, ARRAY[cardinality(r.ids)]),
            array_fill(0, ARRAY[cardinality(r.ids)]), array_fill(NULL::bigint, ARRAY[cardinality(r.ids)]),
            array_fill(0::double precision, ARRAY[cardinality(r.ids)]));
        DELETE FROM farwrite.ledger WHERE command_id = ANY (r.ids) AND outcome = 'dead_lettered';
        DELETE FROM farwrite.ledger_derived WHERE command_id = ANY (r.ids) AND outcome = 'dead_lettered';
        INSERT INTO farwrite.operations (act, stream_id, sequence, command_id, subject, reason)
        SELECT 'requeue', d.stream_id, d.sequence, d.command_id, d.reason, p_reason
        FROM farwrite.dead_letters d WHERE d.stream_id = p_stream AND d.sequence = ANY (r.sequences);
        DELETE FROM farwrite.dead_letters WHERE stream_id = p_stream AND sequence = ANY (r.sequences);
        v_count := v_count + cardinality(r.ids);
    END LOOP;
    RETURN v_count;
END $$;
