-- Pauses a command name or a key: from the next batch on its commands are parked, and with them
-- what comes behind them in their keys. An atomic batch with such a member is parked as a whole. Answers false when it was paused already.
CREATE OR REPLACE FUNCTION farwrite.pause(p_name text, p_key text, p_reason text) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    v_new boolean;
BEGIN
    PERFORM farwrite.hold_lanes();
    INSERT INTO farwrite.pauses (name, order_key, reason) VALUES (p_name, p_key, p_reason)
    ON CONFLICT (name, order_key) DO NOTHING;
    v_new := FOUND;
    IF v_new THEN
        INSERT INTO farwrite.operations (act, subject, reason)
        VALUES ('pause', coalesce('name ' || p_name, 'key ' || p_key), p_reason);
    END IF;
    UPDATE farwrite.lanes SET paused = true WHERE NOT paused;
    RETURN v_new;
END $$;
