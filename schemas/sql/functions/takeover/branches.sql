-- What this server's history says of branches; branches it does not hold have no row.
--   timeline    the timeline that the epoch's commits are on
--   ends        the last position of that timeline that survives here; null while it goes on
--   proven      a position of that timeline that is replayed here for certain
CREATE OR REPLACE FUNCTION farwrite.branches(p_epochs uuid[])
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
