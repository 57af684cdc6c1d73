-- Closes a staged batch: the outcomes go into the ledger. Raises FW002 when this is no longer the
-- transaction that farwrite.open_batch began: a handler ended it, and what it committed is not
-- in the ledger. What the last handler left in the session is put back; so this function has no
-- setting of its own, which would be restored behind it.
CREATE OR REPLACE FUNCTION farwrite.close_batch(
    p_xid text, p_stream integer, p_ids uuid[], p_fingerprints uuid[], p_sequences bigint[], p_at bigint[],
    p_attempts integer[], p_outcomes text[], p_answers text[], p_unconfirmed boolean[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    RESET ROLE;
    RESET ALL;
    PERFORM pg_catalog.pg_advisory_unlock_all();
    IF pg_catalog.pg_current_xact_id_if_assigned()::text IS DISTINCT FROM p_xid THEN
        RAISE EXCEPTION 'the batch''s transaction % was ended by one of its commands', p_xid
            USING ERRCODE = 'FW002', SCHEMA = 'farwrite', HINT = 'A handler must not commit or roll back: the worker does.';
    END IF;
    PERFORM farwrite.record(p_stream, p_ids, p_fingerprints, p_sequences, p_at, p_attempts, p_outcomes, p_answers, p_unconfirmed);
END $$;
