-- Drops the ledger's partitions that lie wholly before p_before (UTC days), and answers how many. The
-- horizon rises with it: a day that was dropped is never made again. The bounds are the catalog's: a
-- name has no year of five digits.
CREATE OR REPLACE FUNCTION farwrite.drop_ledger_days(p_before timestamptz) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    v_day     timestamptz := date_trunc('day', p_before, 'UTC');
    v_name    text;
    v_dropped integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('farwrite.ledger'));
    UPDATE farwrite.ledger_horizon SET known_from = v_day WHERE known_from < v_day;
    FOR v_name IN
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'farwrite.ledger'::regclass
          AND substring(pg_get_expr(c.relpartbound, c.oid) FROM 'TO \(''([0-9a-f-]{36})''\)')::uuid <= farwrite.first_id_at(v_day)
    LOOP
        EXECUTE format('DROP TABLE farwrite.%I', v_name);
        v_dropped := v_dropped + 1;
    END LOOP;
    RETURN v_dropped;
END $$;
