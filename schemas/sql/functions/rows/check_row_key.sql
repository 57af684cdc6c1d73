-- Refuses a command that has another key than its row. p_row holds the row's key.
CREATE OR REPLACE FUNCTION farwrite.check_row_key(p_plan farwrite.row_plan, p_row jsonb, p_key text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_key text;
BEGIN
    IF NOT p_plan.keyed THEN
        RETURN;
    END IF;
    EXECUTE p_plan.key INTO v_key USING p_row;
    IF v_key IS NULL THEN
        PERFORM farwrite.reject('bad_body', pg_catalog.format('a column of the primary key of %s is null', p_plan.name));
    ELSIF p_key IS DISTINCT FROM v_key THEN
        PERFORM farwrite.reject('bad_key', pg_catalog.format('a command of this row has the key %s, not %s', v_key, coalesce(p_key, 'none')));
    END IF;
END $$;
