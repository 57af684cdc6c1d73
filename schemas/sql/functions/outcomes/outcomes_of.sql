-- Everything about how commands ended, or wait, for many ids at once. Ids that nothing is known of
-- have no row. For outcomes that are asked for, on the primary and on every
-- replica; it reads only.
--   status      how it ended, or parked; or unconfirmed: it ended, and how is not told before every
--               required standby has it (reason says so too)
--   answer      the output, or the rejection, or why it was dead-lettered; of a parked command the
--               code and message of its last failure; null of an unconfirmed one
--   fingerprint null for a message that was no command; zeros match every command
--   stream      null, with sequence and published_at, for one that was cancelled before it came
--   due_at      when a parked command, or what waits before it in its key queue, is tried next; infinity
--               while it is paused
CREATE OR REPLACE FUNCTION farwrite.outcomes_of(p_ids uuid[])
RETURNS TABLE (command_id uuid, status text, answer json, fingerprint uuid, attempts integer, stream text,
               sequence bigint, published_at timestamptz, settled_at timestamptz, reason text, due_at timestamptz)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog SET enable_seqscan = off AS $$
DECLARE
    v_dated   uuid[];
    v_derived uuid[];
    v_rest    uuid[] := p_ids;
    v_untold  uuid[] := (SELECT array_agg(u.command_id) FROM farwrite.unconfirmed u WHERE u.command_id = ANY (p_ids));
    v_first   uuid;
    v_last    uuid;
    r         record;
BEGIN
    SELECT array_agg(i) FILTER (WHERE dated), array_agg(i) FILTER (WHERE NOT dated)
    INTO v_dated, v_derived
    FROM (SELECT i, farwrite.is_dated(i) AS dated FROM unnest(p_ids) AS i) AS ids;
    -- The bounds keep partitions of other days out; PostgreSQL 15 has no min() of uuid.
    SELECT i INTO v_first FROM unnest(v_dated) AS i ORDER BY i LIMIT 1;
    SELECT i INTO v_last FROM unnest(v_dated) AS i ORDER BY i DESC LIMIT 1;
    FOR r IN
        SELECT l.command_id, l.outcome, l.answer, l.fingerprint, l.attempts, l.stream_id, l.sequence, l.published_at, l.settled_at
        FROM farwrite.ledger l
        WHERE l.command_id = ANY (v_dated) AND l.command_id BETWEEN v_first AND v_last
        UNION ALL
        SELECT l.command_id, l.outcome, l.answer, l.fingerprint, l.attempts, l.stream_id, l.sequence, l.published_at, l.settled_at
        FROM farwrite.ledger_derived l
        WHERE l.command_id = ANY (v_derived)
    LOOP
        command_id := r.command_id;
        reason := CASE WHEN r.command_id = ANY (v_untold) THEN 'unconfirmed' END;
        status := coalesce(reason, r.outcome::text);
        answer := CASE WHEN reason IS NULL THEN r.answer END;
        fingerprint := r.fingerprint;
        attempts := r.attempts;
        stream := (SELECT s.name FROM farwrite.streams s WHERE s.stream_id = r.stream_id);
        sequence := CASE WHEN stream IS NOT NULL THEN r.sequence END;
        published_at := r.published_at;
        settled_at := r.settled_at;
        RETURN NEXT;
        v_rest := array_remove(v_rest, r.command_id);
    END LOOP;
    IF cardinality(v_rest) = 0 THEN
        RETURN;
    END IF;
    RETURN QUERY
        SELECT DISTINCT ON (p.command_id) p.command_id, 'parked', p.error, p.fingerprint, p.attempts, s.name, p.sequence,
               to_timestamp(p.published_at / 1e9), NULL::timestamptz, p.reason, coalesce(p.due_at, l.due_at)
        FROM farwrite.parked p
        LEFT JOIN farwrite.key_queues l ON l.stream_id = p.stream_id AND l.key_queue = p.key_queue AND p.place IS NOT NULL
        LEFT JOIN farwrite.streams s ON s.stream_id = p.stream_id
        WHERE p.command_id = ANY (v_rest)
        ORDER BY p.command_id, p.sequence;
    -- What was no command has no row in the ledger. An id that came undecodable once may have come
    -- well later: then the ledger, or what is parked, has the last word.
    RETURN QUERY
        SELECT DISTINCT ON (d.command_id) d.command_id, 'dead_lettered',
               json_build_object('reason', d.reason, 'message', d.message), NULL::uuid, 1, s.name, d.sequence,
               d.published_at, d.dead_lettered_at, NULL::text, NULL::timestamptz
        FROM farwrite.dead_letters d LEFT JOIN farwrite.streams s USING (stream_id)
        WHERE d.command_id = ANY (v_rest)
          AND NOT EXISTS (SELECT FROM farwrite.parked p WHERE p.command_id = d.command_id)
        ORDER BY d.command_id, d.sequence;
END $$;
