-- farwrite.call is made from it: calls the function of the command at place j of the arrays, and
-- leaves the session as the function does. For the members of an atomic batch, which defer their
-- constraints to its end.
CREATE OR REPLACE FUNCTION farwrite.call_template(
    j integer, p_functions integer[], p_ids uuid[], p_names text[], p_versions integer[], p_keys text[], p_origins text[],
    p_sequences bigint[], p_at bigint[], p_bodies bytea, p_starts integer[], INOUT answers text[])
LANGUAGE plpgsql AS $$
BEGIN
    /*call*/
END $$;
