-- {"table": "app.users", "row": {…}, "if": {…}}. With an "if" it is an update of a row that must be
-- there. A row of nothing but its key is stored if it is absent, and not touched if it is there.
CREATE OR REPLACE FUNCTION farwrite.row_upsert(p_body jsonb, p_meta farwrite.meta) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    v_plan   farwrite.row_plan := farwrite.plan_row('upsert', p_body);
    v_row    jsonb := p_body->'row';
    v_output jsonb;
    v_as_if  boolean;
BEGIN
    IF p_body ? 'if' THEN
        RETURN farwrite.change_row(v_plan, v_row, v_row, p_body->'if', p_meta, 'precondition');
    END IF;
    -- Twice: a row that is there may be deleted by somebody before it was looked at.
    FOR i IN 1 .. 2 LOOP
        EXECUTE v_plan.change INTO v_output USING v_row, p_meta.key;
        IF v_output IS NULL THEN
            PERFORM farwrite.check_row_key(v_plan, v_row, p_meta.key);
            EXIT WHEN v_plan.look IS NULL;
            EXECUTE v_plan.look INTO v_as_if, v_output USING v_row;
        END IF;
        IF v_output IS NOT NULL THEN
            RETURN v_output;
        END IF;
    END LOOP;
    PERFORM farwrite.reject('suppressed', pg_catalog.format('the database kept the row of %s from being stored: a trigger', v_plan.name));
END $$;
