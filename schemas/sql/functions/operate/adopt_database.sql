-- Goes on with a database, by an operator's word: what another database wrote into these rows is from
-- now on of the past, and bookmarks of it are of another database. Where they are this database's own,
-- that is so only with p_new. Answers the identity; what the server says alone before the first takeover.
CREATE OR REPLACE FUNCTION farwrite.adopt_database(p_new boolean, p_reason text)
RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    v_identity text;
BEGIN
    UPDATE farwrite.owner
    SET identity = farwrite.home() || '/' || gen_random_uuid(), flushed_lsn = NULL
    WHERE p_new OR farwrite.identity() IS NULL;
    SELECT coalesce(max(identity), farwrite.home()) INTO v_identity FROM farwrite.owner;
    INSERT INTO farwrite.operations (act, subject, reason) VALUES ('adopt_database', v_identity, p_reason);
    RETURN v_identity;
END $$;
