-- Asks to be tried again after p_wait: the command is parked for that long, its key behind it, and
-- no attempt is spent.
CREATE OR REPLACE FUNCTION farwrite.try_later(p_wait interval, p_message text DEFAULT 'asked to be tried later') RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'FW010', MESSAGE = p_message, SCHEMA = 'farwrite',
        DETAIL = greatest(0, extract(epoch FROM p_wait) * 1000)::bigint::text;
END $$;
