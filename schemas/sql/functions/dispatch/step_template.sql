-- One command of a batch, at place j: sets its context, calls its function, and puts back what the
-- function may leave behind that the next one must not meet. What was deferred is checked here, where
-- it can be told whose it was. farwrite.call_all and farwrite.call_guarded have it within their loops:
-- PL/pgSQL would set up a call of it for each command.
CREATE OR REPLACE FUNCTION farwrite.step_template(
    j integer, p_functions integer[], p_ids uuid[], p_names text[], p_versions integer[], p_keys text[], p_origins text[],
    p_sequences bigint[], p_at bigint[], p_bodies bytea, p_starts integer[], p_expires bigint[], p_contexts text[],
    INOUT outcomes text[], INOUT answers text[])
LANGUAGE plpgsql AS $$
BEGIN
    IF cardinality(p_expires) > 0 AND p_expires[j] <= extract(epoch FROM clock_timestamp()) * 1e9 THEN
        outcomes[j] := 'expired';
        answers[j] := NULL;
    ELSE
        IF cardinality(p_contexts) > 0 THEN
            PERFORM set_config('farwrite.context', coalesce(p_contexts[j], ''), true);
        END IF;
        /*call*/
        -- What a lone command defers is its commit's affair.
        IF cardinality(p_functions) > 1 THEN
            SET CONSTRAINTS ALL IMMEDIATE;
        END IF;
        RESET ROLE;
        RESET ALL;
        outcomes[j] := 'applied';
    END IF;
END $$;
