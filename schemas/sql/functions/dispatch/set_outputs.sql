-- What a set-form function answered, as text; one output a command, or its run fails.
CREATE OR REPLACE FUNCTION farwrite.set_outputs(p_function regprocedure, p_outputs jsonb[], p_count integer) RETURNS text[]
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF coalesce(cardinality(p_outputs), 0) <> p_count THEN
        RAISE EXCEPTION '% answered % outputs for % commands', p_function, coalesce(cardinality(p_outputs), 0), p_count
            USING ERRCODE = 'FW005', SCHEMA = 'farwrite';
    END IF;
    RETURN p_outputs::text[];
END $$;
