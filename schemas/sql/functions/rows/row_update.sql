-- {"table": "app.users", "key": {…}, "set": {…}, "if": {…}}
CREATE OR REPLACE FUNCTION farwrite.row_update(p_body jsonb, p_meta farwrite.meta) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    RETURN farwrite.change_row(farwrite.plan_row('update', p_body), p_body->'key', p_body->'set', p_body->'if', p_meta, 'not_found');
END $$;
