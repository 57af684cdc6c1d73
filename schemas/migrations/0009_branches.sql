-- Which branch of history a position lies on. After a failover positions say nothing by
-- themselves: a replica can have replayed past the position of a commit that it does not hold.
-- Everything that is asked here is asked of rows, which a failover takes back with the commits.

-- A position that was flushed before this row was written: whoever sees the row has replayed it, on
-- the owner's branch. The heartbeat writes it.
ALTER TABLE farwrite.owner ADD COLUMN flushed_lsn pg_lsn;

-- history.parent_lsn: the last position of the parent that is known to survive. Null where nothing
-- of it was lost, which is so while the timeline stays the same.
UPDATE farwrite.history h SET parent_lsn = NULL
FROM farwrite.history p WHERE p.epoch = h.parent AND p.timeline = h.timeline;

-- Where the timeline p_timeline ended for this server, which is on p_now; null when the server does
-- not tell. It is in a file that only a superuser, or who may execute pg_read_file, reads.
CREATE FUNCTION farwrite.timeline_end(p_timeline integer, p_now integer) RETURNS pg_lsn
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    v_file text;
BEGIN
    v_file := pg_read_file('pg_wal/' || upper(lpad(to_hex(p_now), 8, '0')) || '.history');
    RETURN (regexp_match(v_file, '^\s*' || p_timeline || '\s+([0-9A-F]+/[0-9A-F]+)', 'n'))[1]::pg_lsn;
EXCEPTION WHEN insufficient_privilege OR undefined_file THEN
    RETURN NULL;
END $$;

-- Begins an epoch: one row a takeover. Its parent, if any, is the owner's epoch before it, whose
-- last known position is p_flushed. Where the server does not tell where the parent's timeline
-- ended, what is known to survive is what the rows prove; the rest counts as lost, and whoever
-- asks for it is told to ask for the outcome.
CREATE FUNCTION farwrite.begin_epoch(p_epoch uuid, p_parent uuid, p_flushed pg_lsn, p_timeline integer)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    v_before   farwrite.history;
    v_survives pg_lsn;
BEGIN
    SELECT * INTO v_before FROM farwrite.history WHERE epoch = p_parent;
    IF FOUND AND v_before.timeline <> p_timeline THEN
        v_survives := coalesce(farwrite.timeline_end(v_before.timeline, p_timeline),
                               greatest(p_flushed, v_before.begin_lsn));
    END IF;
    INSERT INTO farwrite.history (epoch, parent, timeline, begin_lsn, parent_lsn, taken_at)
    VALUES (p_epoch, p_parent, p_timeline, pg_current_wal_flush_lsn(), v_survives, now());
END $$;

-- What this server's history says of branches; branches it does not hold have no row.
--   timeline    the timeline that the epoch's commits are on
--   ends        the last position of that timeline that survives here; null while it goes on
--   proven      a position of that timeline that is replayed here for certain
CREATE FUNCTION farwrite.branches(p_epochs uuid[])
RETURNS TABLE (epoch uuid, timeline integer, ends pg_lsn, proven pg_lsn)
LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
    SELECT h.epoch, h.timeline,
           (SELECT min(f.parent_lsn) FROM farwrite.history d JOIN farwrite.history f ON f.parent = d.epoch
            WHERE d.timeline = h.timeline AND f.timeline <> h.timeline),
           (SELECT greatest(max(d.begin_lsn), max(o.flushed_lsn))
            FROM farwrite.history d LEFT JOIN farwrite.owner o ON o.epoch = d.epoch
            WHERE d.timeline = h.timeline)
    FROM farwrite.history h WHERE h.epoch = ANY (p_epochs)
$$;
