-- The fence, and the lane's new position in one: the first statement of every batch. It locks the
-- lane's row, so that a takeover waits for a batch in flight and no two batches run at once; what
-- it answers holds until the transaction ends.
CREATE OR REPLACE FUNCTION farwrite.fence(
    p_stream integer, p_lane integer, p_epoch uuid, p_from bigint, p_to bigint, p_to_at bigint,
    p_to_id uuid, OUT parked bigint, OUT paused boolean)
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    -- A batch of parked commands stays where the lane is.
    UPDATE farwrite.lanes l SET sequence = p_to, sequence_at = p_to_at, sequence_id = p_to_id
    WHERE l.stream_id = p_stream AND l.lane = p_lane AND l.epoch = p_epoch AND l.sequence = p_from
    RETURNING l.parked, l.paused INTO parked, paused;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'lane % of stream % is not at % under epoch %', p_lane, p_stream, p_from, p_epoch
            USING ERRCODE = 'FW001', SCHEMA = 'farwrite', HINT = 'Another worker has taken over this database.';
    END IF;
END $$;
