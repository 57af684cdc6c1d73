-- What an operator does by hand: put dead letters back, discard them, release what is parked,
-- pause and resume, cancel. Every act is written down in farwrite.operations. None of it is in the
-- stream: a failover that loses commits can lose it too.

-- Holds the rows of all lanes, so that no batch runs meanwhile; in a fixed order, so that two acts
-- do not wait for each other.
CREATE FUNCTION farwrite.hold_lanes() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    PERFORM FROM farwrite.lanes ORDER BY stream_id, lane FOR UPDATE;
END $$;

-- Counts anew what the lanes' rows say about parked and paused commands.
CREATE FUNCTION farwrite.count_parked() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    UPDATE farwrite.lanes l
    SET parked = coalesce(c.n, 0), paused = EXISTS (SELECT FROM farwrite.pauses)
    FROM farwrite.lanes m
    LEFT JOIN (SELECT p.stream_id, p.lane_hash % s.lanes AS lane, count(*) AS n
               FROM farwrite.parked p JOIN farwrite.streams s USING (stream_id)
               WHERE s.lanes > 0 GROUP BY 1, 2) c ON c.stream_id = m.stream_id AND c.lane = m.lane
    WHERE l.stream_id = m.stream_id AND l.lane = m.lane
      AND (l.parked <> coalesce(c.n, 0) OR l.paused <> EXISTS (SELECT FROM farwrite.pauses));
END $$;

-- Puts dead letters at the ends of their keys' lines, with their ids; they are applied like any
-- command. The arrays are what the worker's program read from the letters. Answers how many.
CREATE FUNCTION farwrite.requeue(
    p_stream integer, p_sequences bigint[], p_ids uuid[], p_fingerprints uuid[], p_names text[], p_versions integer[],
    p_keys text[], p_lines text[], p_lane_hashes bigint[], p_reason text) RETURNS integer
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
               array_agg(u.line ORDER BY d.sequence) AS lines, array_agg(u.lane_hash ORDER BY d.sequence) AS hashes,
               array_agg(d.subject ORDER BY d.sequence) AS subjects, array_agg(d.headers::text ORDER BY d.sequence) AS headers,
               array_agg(d.body ORDER BY d.sequence) AS bodies,
               array_agg((extract(epoch FROM d.published_at) * 1e9)::bigint ORDER BY d.sequence) AS at
        FROM unnest(p_sequences, p_ids, p_fingerprints, p_names, p_versions, p_keys, p_lines, p_lane_hashes)
            AS u (sequence, id, fingerprint, name, version, order_key, line, lane_hash)
        JOIN farwrite.dead_letters d ON d.stream_id = p_stream AND d.sequence = u.sequence
        JOIN farwrite.streams s ON s.stream_id = p_stream
        GROUP BY 1, 2
    LOOP
        PERFORM farwrite.park(p_stream, r.lane::integer, r.sequences, r.ids, r.fingerprints, r.names, r.versions, r.keys,
            r.lines, r.hashes, r.subjects, r.headers, r.bodies, r.at,
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

-- Throws dead letters away; their outcome stays what it was. Answers how many.
CREATE FUNCTION farwrite.discard(p_stream integer, p_sequences bigint[], p_reason text) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    v_count integer;
BEGIN
    IF coalesce(p_reason, '') = '' THEN
        RAISE EXCEPTION 'discarding a dead letter wants a reason' USING ERRCODE = '22023';
    END IF;
    WITH gone AS (
        DELETE FROM farwrite.dead_letters WHERE stream_id = p_stream AND sequence = ANY (p_sequences)
        RETURNING stream_id, sequence, command_id, reason
    ), noted AS (
        INSERT INTO farwrite.operations (act, stream_id, sequence, command_id, subject, reason)
        SELECT 'discard', stream_id, sequence, command_id, reason, p_reason FROM gone RETURNING 1
    )
    SELECT count(*) INTO v_count FROM noted;
    RETURN v_count;
END $$;

-- Has parked commands tried at once, with what waits before them in their lines; scheduled ones
-- before their time. Answers how many of them were parked.
CREATE FUNCTION farwrite.release(p_stream integer, p_sequences bigint[], p_reason text) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    v_count integer;
BEGIN
    PERFORM farwrite.hold_lanes();
    UPDATE farwrite.parked SET due_at = clock_timestamp()
    WHERE stream_id = p_stream AND sequence = ANY (p_sequences) AND place IS NULL;
    UPDATE farwrite.parked_lines l SET due_at = clock_timestamp()
    FROM farwrite.parked p
    WHERE p.stream_id = p_stream AND p.sequence = ANY (p_sequences) AND p.place IS NOT NULL
      AND l.stream_id = p.stream_id AND l.line = p.line;
    WITH noted AS (
        INSERT INTO farwrite.operations (act, stream_id, sequence, command_id, subject, reason)
        SELECT 'release', p.stream_id, p.sequence, p.command_id, p.reason, p_reason
        FROM farwrite.parked p WHERE p.stream_id = p_stream AND p.sequence = ANY (p_sequences) RETURNING 1
    )
    SELECT count(*) INTO v_count FROM noted;
    RETURN v_count;
END $$;

-- Pauses a command name or a key: from the next batch on its commands are parked, and with them
-- what comes behind them in their keys. Answers false when it was paused already.
CREATE FUNCTION farwrite.pause(p_name text, p_key text, p_reason text) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    v_new boolean;
BEGIN
    PERFORM farwrite.hold_lanes();
    INSERT INTO farwrite.pauses (name, order_key, reason) VALUES (p_name, p_key, p_reason)
    ON CONFLICT (name, order_key) DO NOTHING;
    v_new := FOUND;
    IF v_new THEN
        INSERT INTO farwrite.operations (act, subject, reason)
        VALUES ('pause', coalesce('name ' || p_name, 'key ' || p_key), p_reason);
    END IF;
    UPDATE farwrite.lanes SET paused = true WHERE NOT paused;
    RETURN v_new;
END $$;

-- Takes a pause back. Answers false when there was none.
CREATE FUNCTION farwrite.resume(p_name text, p_key text) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    v_found boolean;
BEGIN
    PERFORM farwrite.hold_lanes();
    DELETE FROM farwrite.pauses p
    WHERE p.name IS NOT DISTINCT FROM p_name AND p.order_key IS NOT DISTINCT FROM p_key;
    v_found := FOUND;
    IF v_found THEN
        INSERT INTO farwrite.operations (act, subject) VALUES ('resume', coalesce('name ' || p_name, 'key ' || p_key));
        UPDATE farwrite.parked_lines SET due_at = clock_timestamp() WHERE due_at = 'infinity';
    END IF;
    UPDATE farwrite.lanes SET paused = EXISTS (SELECT FROM farwrite.pauses)
    WHERE paused <> EXISTS (SELECT FROM farwrite.pauses);
    RETURN v_found;
END $$;

-- Cancels a command that has not ended: it is recorded as rejected (code cancelled), whether it is
-- parked, still in the stream, or not published yet. Answers null, or how it had ended before.
CREATE FUNCTION farwrite.cancel(p_id uuid, p_reason text) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    v_ended text;
    v_parked farwrite.parked;
    v_answer text := json_build_object('code', 'cancelled', 'message', 'an operator cancelled the command: ' || p_reason)::text;
BEGIN
    PERFORM farwrite.hold_lanes();
    SELECT outcome::text INTO v_ended FROM farwrite.look_up(ARRAY[p_id]);
    IF FOUND THEN
        RETURN v_ended;
    END IF;
    SELECT * INTO v_parked FROM farwrite.parked p WHERE p.command_id = p_id;
    IF FOUND THEN
        PERFORM farwrite.unpark(v_parked.stream_id,
            (v_parked.lane_hash % (SELECT lanes FROM farwrite.streams s WHERE s.stream_id = v_parked.stream_id))::integer,
            ARRAY[v_parked.sequence]);
        PERFORM farwrite.record(v_parked.stream_id, ARRAY[p_id], ARRAY[v_parked.fingerprint], ARRAY[v_parked.sequence],
            ARRAY[v_parked.published_at], ARRAY[greatest(v_parked.attempts, 1)], ARRAY['rejected'], ARRAY[v_answer]);
    ELSE
        IF farwrite.is_dated(p_id) THEN
            PERFORM farwrite.make_ledger_days(farwrite.id_time(p_id), farwrite.id_time(p_id));
        END IF;
        -- Zeros stand for the fingerprint of whatever comes under this id.
        PERFORM farwrite.record(0, ARRAY[p_id], ARRAY['00000000-0000-0000-0000-000000000000'::uuid], ARRAY[0::bigint],
            ARRAY[NULL::bigint], ARRAY[1], ARRAY['rejected'], ARRAY[v_answer]);
    END IF;
    INSERT INTO farwrite.operations (act, stream_id, sequence, command_id, reason)
    VALUES ('cancel', v_parked.stream_id, v_parked.sequence, p_id, p_reason);
    RETURN NULL;
END $$;
