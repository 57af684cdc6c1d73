-- Throws dead letters away; their outcome stays what it was. Answers how many.
CREATE OR REPLACE FUNCTION farwrite.discard(p_stream integer, p_sequences bigint[], p_reason text) RETURNS integer
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
