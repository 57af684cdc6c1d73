-- Begins an epoch: one row a takeover. Its parent, if any, is the owner's epoch before it, whose
-- last known position is p_flushed; an epoch of another database is none. Where the server does not
-- tell where the parent's timeline ended, what is known to survive is what the rows prove; the rest
-- counts as lost, and a caller that asks for it is told to ask for the outcome. The oldest rows beyond
-- c_rows are deleted.
CREATE OR REPLACE FUNCTION farwrite.begin_epoch(p_epoch uuid, p_parent uuid, p_flushed pg_lsn, p_timeline integer)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    -- A worker that takes over every second without end needs three hours for so many. Reading past
    -- them to find the oldest takes a millisecond.
    c_rows     CONSTANT integer := 10000;
    v_identity text := (SELECT identity FROM farwrite.owner);
    v_before   farwrite.history;
    v_survives pg_lsn;
    v_left     integer;
BEGIN
    SELECT * INTO v_before FROM farwrite.history WHERE epoch = p_parent AND identity = v_identity;
    IF FOUND AND v_before.timeline <> p_timeline THEN
        v_left := v_before.timeline;
        v_survives := coalesce(farwrite.timeline_end(v_left, p_timeline), greatest(p_flushed, v_before.begin_lsn));
    END IF;
    INSERT INTO farwrite.history (epoch, parent, timeline, begin_lsn, parent_lsn, left_timeline, taken_at, identity)
    VALUES (p_epoch, v_before.epoch, p_timeline, pg_current_wal_flush_lsn(), v_survives, v_left, now(), v_identity);
    DELETE FROM farwrite.history
    WHERE number < (SELECT h.number FROM farwrite.history h ORDER BY h.number DESC OFFSET c_rows - 1 LIMIT 1);
END $$;
