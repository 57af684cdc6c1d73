-- Takes a pause back. Answers false when there was none.
CREATE OR REPLACE FUNCTION farwrite.resume(p_name text, p_key text) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    v_found boolean;
BEGIN
    PERFORM farwrite.hold_lanes();
    DELETE FROM farwrite.pauses p
    WHERE p.name IS NOT DISTINCT FROM p_name AND p.order_key IS NOT DISTINCT FROM p_key;
    v_found := FOUND;
    IF v_found THEN
        INSERT INTO farwrite.operations (act, subject) VALUES ('resume', coalesce('name ' || p_name, 'key ' || p_key));
        UPDATE farwrite.key_queues SET due_at = clock_timestamp() WHERE due_at = 'infinity';
    END IF;
    UPDATE farwrite.lanes SET paused = EXISTS (SELECT FROM farwrite.pauses)
    WHERE paused <> EXISTS (SELECT FROM farwrite.pauses);
    RETURN v_found;
END $$;
