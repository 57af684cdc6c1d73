-- Whether one of these ids is parked, in any lane.
CREATE OR REPLACE FUNCTION farwrite.is_any_parked(p_ids uuid[]) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN EXISTS (SELECT FROM farwrite.lanes n WHERE n.parked > 0)
       AND EXISTS (SELECT FROM farwrite.parked p WHERE p.command_id = ANY (p_ids));
END $$;
