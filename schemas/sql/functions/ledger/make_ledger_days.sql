-- Makes the ledger's partitions from the day of p_from to the day of p_to (both inclusive, UTC),
-- and answers how many were new. None is made below the horizon: what was dropped there is not known
-- any more, and a command with such an id finds no partition. A partition is attached, not created in place: that does not
-- hold up who reads or writes the ledger.
CREATE OR REPLACE FUNCTION farwrite.make_ledger_days(p_from timestamptz, p_to timestamptz) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    v_day  timestamp := date_trunc('day', p_from AT TIME ZONE 'UTC');
    v_last timestamp := date_trunc('day', p_to AT TIME ZONE 'UTC');
    v_name text;
    v_made integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('farwrite.ledger'));
    SELECT greatest(v_day, known_from AT TIME ZONE 'UTC') INTO v_day FROM farwrite.ledger_horizon;
    WHILE v_day <= v_last LOOP
        v_name := 'ledger_' || to_char(v_day, 'YYYYMMDD');
        IF to_regclass('farwrite.' || v_name) IS NULL THEN
            EXECUTE format('CREATE TABLE farwrite.%I (LIKE farwrite.ledger INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', v_name);
            EXECUTE format('ALTER TABLE farwrite.ledger ATTACH PARTITION farwrite.%I FOR VALUES FROM (%L) TO (%L)',
                v_name,
                farwrite.first_id_at(v_day AT TIME ZONE 'UTC'),
                farwrite.first_id_at((v_day + interval '1 day') AT TIME ZONE 'UTC'));
            v_made := v_made + 1;
        END IF;
        v_day := v_day + interval '1 day';
    END LOOP;
    RETURN v_made;
END $$;
