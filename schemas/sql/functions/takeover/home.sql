-- What the server says of this database: the cluster's system identifier, the oid of the database, and
-- that of the table of takeovers. A replica says the same. A dump, a copy, a logical subscriber and an
-- upgraded cluster do not: they have these rows without being the database that wrote them.
CREATE OR REPLACE FUNCTION farwrite.home() RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
    SELECT concat_ws('/', c.system_identifier, d.oid, 'farwrite.history'::regclass::oid)
    FROM pg_control_system() c, pg_database d WHERE d.datname = current_database()
$$;
