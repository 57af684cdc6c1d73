-- Holds the rows of all lanes, so that no batch runs meanwhile; in a fixed order, so that two acts
-- do not wait for each other.
CREATE OR REPLACE FUNCTION farwrite.hold_lanes() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    PERFORM FROM farwrite.lanes ORDER BY stream_id, lane FOR UPDATE;
END $$;
