-- The identity of this database; null before its first takeover, and where the owner's row was written
-- by another one.
CREATE OR REPLACE FUNCTION farwrite.identity() RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
    SELECT o.identity FROM farwrite.owner o WHERE starts_with(o.identity, farwrite.home() || '/')
$$;
