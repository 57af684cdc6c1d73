-- {"table": "app.users", "row": {…}}
CREATE OR REPLACE FUNCTION farwrite.row_insert(p_body jsonb, p_meta farwrite.meta) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    v_plan   farwrite.row_plan := farwrite.plan_row('insert', p_body);
    v_output jsonb;
BEGIN
    EXECUTE v_plan.change INTO v_output USING p_body->'row', p_meta.key;
    IF v_output IS NULL THEN
        PERFORM farwrite.check_row_key(v_plan, p_body->'row', p_meta.key);
        PERFORM farwrite.reject('suppressed', pg_catalog.format('the database kept the row of %s from being stored: a trigger', v_plan.name));
    END IF;
    RETURN v_output;
END $$;
