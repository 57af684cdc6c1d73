-- What a repeated id is answered with: the stored outcome, or a rejection where the id was used
-- for another command. A stored fingerprint of zeros is a cancellation of any command.
CREATE OR REPLACE FUNCTION farwrite.repeated_answer(
    p_outcome farwrite.outcome, p_answer json, p_stored uuid, p_fingerprint uuid,
    OUT outcome text, OUT answer text)
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog AS $$
    SELECT CASE WHEN is_same THEN p_outcome::text ELSE 'rejected' END,
           CASE WHEN is_same THEN p_answer::text
                ELSE '{"code":"id_reused","message":"this command id was used for another command (its name, version, key or body differs); nothing was applied"}' END
    FROM (SELECT p_stored = p_fingerprint OR p_stored = '00000000-0000-0000-0000-000000000000') AS s (is_same)
$$;
