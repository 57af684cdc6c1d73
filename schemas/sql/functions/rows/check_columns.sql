-- Refuses columns that are not in the list that the owner opened.
CREATE OR REPLACE FUNCTION farwrite.check_columns(p_table text, p_given text[], p_open text[], p_what text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    v_closed text := (SELECT c FROM unnest(p_given) c WHERE c <> ALL (p_open) ORDER BY c LIMIT 1);
BEGIN
    IF v_closed IS NOT NULL THEN
        PERFORM farwrite.reject('not_allowed', format('column %s of %s is not open %s', to_json(left(v_closed, 100)), p_table, p_what));
    END IF;
END $$;
