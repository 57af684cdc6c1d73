-- The answers of a batch, for the worker's memory: 4 MiB in all. Of an output that goes beyond, the number of
-- its bytes is told, as #bytes, which is no JSON. The ledger has all of it. Why a command was refused is
-- always told: p_outcomes says which were applied, and all were where it is null.
CREATE OR REPLACE FUNCTION farwrite.shortened(p_answers text[], p_outcomes text[]) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog AS $$
DECLARE
    v_room   bigint := 4 << 20;
    v_bytes  bigint;
    v_told   text[] := p_answers;
BEGIN
    FOR j IN 1 .. coalesce(cardinality(p_answers), 0) LOOP
        CONTINUE WHEN p_outcomes[j] <> 'applied';
        v_bytes := octet_length(p_answers[j]);
        IF v_bytes > v_room THEN
            v_told[j] := '#' || v_bytes;
        ELSIF v_bytes IS NOT NULL THEN
            v_room := v_room - v_bytes;
        END IF;
    END LOOP;
    RETURN v_told;
END $$;
