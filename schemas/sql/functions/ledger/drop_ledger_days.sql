-- Drops the ledger's partitions that lie wholly before p_before (UTC days), and answers how many.
CREATE OR REPLACE FUNCTION farwrite.drop_ledger_days(p_before timestamptz) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    v_name text;
    v_dropped integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('farwrite.ledger'));
    FOR v_name IN
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'farwrite.ledger'::regclass
          AND to_date(substr(c.relname, 8), 'YYYYMMDD') < (date_trunc('day', p_before AT TIME ZONE 'UTC'))::date
    LOOP
        EXECUTE format('DROP TABLE farwrite.%I', v_name);
        v_dropped := v_dropped + 1;
    END LOOP;
    RETURN v_dropped;
END $$;
