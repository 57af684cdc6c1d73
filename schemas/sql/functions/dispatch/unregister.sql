-- Takes a registration back; answers whether there was one.
CREATE OR REPLACE FUNCTION farwrite.unregister(p_name text, version integer DEFAULT 1) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    v_found boolean;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('farwrite.functions'));
    DELETE FROM farwrite.functions f WHERE f.name = p_name AND f.version = unregister.version;
    v_found := FOUND;
    PERFORM farwrite.make_dispatcher();
    RETURN v_found;
END $$;
