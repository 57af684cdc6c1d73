-- Whether the ledger knows one of these ids, all of which carry a time and lie between two of them. No
-- sequential scan, and the bounds: see farwrite.look_up.
CREATE OR REPLACE FUNCTION farwrite.is_any_known(p_ids uuid[], p_lowest uuid, p_highest uuid) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN EXISTS (
        SELECT FROM farwrite.ledger l
        WHERE l.command_id = ANY (p_ids) AND l.command_id BETWEEN p_lowest AND p_highest);
END $$;
