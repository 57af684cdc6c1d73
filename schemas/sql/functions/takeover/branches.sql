-- What this server's history says of branches, a row for each epoch that is asked about.
--   timeline    the timeline that the epoch's commits are on; null for an epoch that it does not hold
--   ends        the last position of that timeline that survives here; null while it goes on
--   proven      a position of that timeline that is replayed here for certain
--   forgotten   of an epoch that it does not hold: takeovers from before this position (inclusive)
--               may have been deleted; null where none was
--   elsewhere   of an epoch that it does not hold: it was another database's, whose rows an operator
--               adopted; nothing of its log is here
--   latest      the timeline of the last takeover that it holds
-- Where another database wrote the rows and nobody has adopted them, they say nothing.
CREATE OR REPLACE FUNCTION farwrite.branches(p_epochs uuid[])
RETURNS TABLE (epoch uuid, timeline integer, ends pg_lsn, proven pg_lsn, forgotten pg_lsn, elsewhere boolean, latest integer)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog AS $$
#variable_conflict use_column
DECLARE
    v_identity text := farwrite.identity();
BEGIN
    IF v_identity IS NULL AND EXISTS (SELECT FROM farwrite.owner) THEN
        RAISE EXCEPTION 'another database wrote these rows: this one is a dump, a copy, a logical subscriber, or of an upgraded cluster'
            USING ERRCODE = 'FW004', SCHEMA = 'farwrite';
    END IF;
    RETURN QUERY
    SELECT asked.epoch, h.timeline,
           (SELECT min(f.parent_lsn) FROM farwrite.history f
            WHERE f.left_timeline = h.timeline AND f.identity = v_identity),
           greatest(h.begin_lsn, CASE WHEN last.timeline = h.timeline THEN last.proven END),
           -- The first takeover has no parent. A bookmark of the last one that was deleted may lie a
           -- little past where the next one began.
           CASE WHEN h.epoch IS NULL THEN
               (SELECT max(k.begin_lsn)
                FROM (SELECT o.parent, o.begin_lsn FROM farwrite.history o ORDER BY o.number LIMIT 2) k
                HAVING bool_and(k.parent IS NOT NULL))
           END,
           EXISTS (SELECT FROM farwrite.history e WHERE e.epoch = asked.epoch AND e.identity <> v_identity),
           last.timeline
    FROM unnest(p_epochs) AS asked (epoch)
    LEFT JOIN farwrite.history h ON h.epoch = asked.epoch AND h.identity = v_identity
    LEFT JOIN (SELECT l.timeline, greatest(l.begin_lsn, o.flushed_lsn) AS proven
               FROM farwrite.history l LEFT JOIN farwrite.owner o ON o.epoch = l.epoch
               ORDER BY l.number DESC LIMIT 1) last ON true;
END $$;
