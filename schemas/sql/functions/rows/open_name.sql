-- The name of a table in farwrite.open_tables. Names with dots in them, which could be mistaken
-- for others, are never opened.
CREATE OR REPLACE FUNCTION farwrite.open_name(p_table regclass) RETURNS text
LANGUAGE sql STABLE STRICT SET search_path = pg_catalog AS $$
    SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = p_table
$$;
