-- Whether one of these ids, all of which carry a time and lie between two of them, has ended or is
-- parked, in any lane: an id may wait under another key. No sequential scan of the ledger, and the
-- bounds: see farwrite.look_up. The parked are looked at only while a lane has some.
CREATE OR REPLACE FUNCTION farwrite.is_any_known(p_ids uuid[], p_lowest uuid, p_highest uuid) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN EXISTS (
            SELECT FROM farwrite.ledger l
            WHERE l.command_id = ANY (p_ids) AND l.command_id BETWEEN p_lowest AND p_highest)
        OR EXISTS (SELECT FROM farwrite.lanes n WHERE n.parked > 0)
           AND EXISTS (SELECT FROM farwrite.parked p WHERE p.command_id = ANY (p_ids));
END $$;
