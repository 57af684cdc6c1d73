-- The key that commands of a row must have, for who publishes them. p_key holds the columns of the
-- primary key; it may hold others. The same expression checks the commands.
CREATE OR REPLACE FUNCTION farwrite.row_key(p_table regclass, p_key jsonb) RETURNS text
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_open farwrite.open_tables;
    v_key  text;
BEGIN
    SELECT o.* INTO v_open FROM farwrite.open_tables o WHERE o.name = farwrite.open_name(p_table);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'table % is not open', p_table USING ERRCODE = '42501', HINT = 'farwrite.open_table opens it.';
    END IF;
    EXECUTE 'SELECT ' || v_open.key_text || ' FROM pg_catalog.jsonb_populate_record(NULL::' || v_open.relation || ', $1) k'
        INTO v_key USING p_key;
    IF v_key IS NULL THEN
        RAISE EXCEPTION 'the key of % wants values for: %', p_table, array_to_string(v_open.key_columns, ', ') USING ERRCODE = '22023';
    END IF;
    RETURN v_key;
END $$;
