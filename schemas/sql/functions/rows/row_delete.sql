-- {"table": "app.users", "key": {…}, "if": {…}}
CREATE OR REPLACE FUNCTION farwrite.row_delete(p_body jsonb, p_meta farwrite.meta) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    RETURN farwrite.change_row(farwrite.plan_row('delete', p_body), p_body->'key', NULL, p_body->'if', p_meta, 'not_found');
END $$;
