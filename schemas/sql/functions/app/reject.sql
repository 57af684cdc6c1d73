-- Refuses the command with a stable code of the app's own: it is recorded and its caller is told.
CREATE OR REPLACE FUNCTION farwrite.reject(p_code text, p_message text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'P0001', MESSAGE = p_message, DATATYPE = p_code;
END $$;
