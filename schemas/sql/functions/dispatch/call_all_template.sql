-- farwrite.call_all is made from it: runs function commands in order, those that have no outcome yet.
-- The first one that fails fails the batch. The arrays are parallel; p_expires (nanoseconds since
-- 1970) and p_contexts may be empty: then nothing expires, or has a context.
CREATE OR REPLACE FUNCTION farwrite.call_all_template(
    p_functions integer[], p_ids uuid[], p_names text[], p_versions integer[], p_keys text[], p_origins text[],
    p_sequences bigint[], p_at bigint[], p_bodies bytea, p_starts integer[], p_expires bigint[], p_contexts text[],
    INOUT outcomes text[], INOUT answers text[])
LANGUAGE plpgsql AS $$
BEGIN
    FOR j IN 1 .. cardinality(p_functions) LOOP
        CONTINUE WHEN outcomes[j] IS NOT NULL;
        /*step*/
    END LOOP;
    PERFORM pg_advisory_unlock_all();
END $$;
