-- A key's value as text, independent of the session's settings.
CREATE OR REPLACE FUNCTION farwrite.key_value(p_value anyelement) RETURNS text
LANGUAGE plpgsql STABLE STRICT SET search_path = pg_catalog
SET timezone = 'UTC' SET datestyle = 'ISO, MDY' SET bytea_output = 'hex' AS $$
BEGIN
    RETURN p_value::text;
END $$;
