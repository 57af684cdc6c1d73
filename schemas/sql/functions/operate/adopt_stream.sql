-- Goes on with a stream from a sequence, by an operator's word: the database learns the identity that
-- the stream has now, and every lane stands before that sequence; p_at and p_id are of the message there,
-- where the stream holds one. A refusal is over. No batch of an older epoch commits any more. Parked commands and dead letters at or above the sequence get numbers
-- that no stream reaches, because theirs may come again: 2^56 on, and so on at each adoption. Answers
-- how many.
CREATE OR REPLACE FUNCTION farwrite.adopt_stream(
    p_stream integer, p_from bigint, p_at bigint, p_id uuid, p_created text, p_identity uuid, p_reason text)
RETURNS bigint LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    v_step   constant bigint := 1::bigint << 56;
    v_offset bigint;
    v_count  bigint;
    v_more   bigint;
BEGIN
    PERFORM farwrite.hold_lanes();
    SELECT (coalesce(max(sequence), 0) / v_step + 1) * v_step INTO v_offset
    FROM (SELECT sequence FROM farwrite.parked WHERE stream_id = p_stream
          UNION ALL SELECT sequence FROM farwrite.dead_letters WHERE stream_id = p_stream) s;
    UPDATE farwrite.parked SET sequence = sequence + v_offset
    WHERE stream_id = p_stream AND sequence >= p_from AND sequence < v_step;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    UPDATE farwrite.dead_letters SET sequence = sequence + v_offset
    WHERE stream_id = p_stream AND sequence >= p_from AND sequence < v_step;
    GET DIAGNOSTICS v_more = ROW_COUNT;
    UPDATE farwrite.lanes
    SET epoch = gen_random_uuid(), sequence = p_from - 1, sequence_at = p_at, sequence_id = p_id, suspects = '{}'
    WHERE stream_id = p_stream;
    UPDATE farwrite.streams
    SET created = p_created, identity = p_identity, low_water = p_from - 1, low_water_at = NULL, trim_floor = NULL,
        high_water = p_from - 1, high_water_at = p_at, high_water_id = p_id, refused = NULL, refused_at = NULL
    WHERE stream_id = p_stream;
    INSERT INTO farwrite.operations (act, stream_id, sequence, subject, reason)
    VALUES ('adopt_stream', p_stream, p_from, p_identity::text, p_reason);
    RETURN v_count + v_more;
END $$;
