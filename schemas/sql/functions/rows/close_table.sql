-- Closes a table; answers whether it was open.
CREATE OR REPLACE FUNCTION farwrite.close_table(p_table regclass) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    DELETE FROM farwrite.open_tables o WHERE o.name = farwrite.open_name(p_table);
    RETURN FOUND;
END $$;
