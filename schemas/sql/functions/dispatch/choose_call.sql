-- Statements that find the call for a function's number, of which p_numbers has the known ones in order: some
-- are compared one after the other, many are halved until they are some.
CREATE OR REPLACE FUNCTION farwrite.choose_call(p_number text, p_numbers integer[], p_calls text[]) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog AS $$
DECLARE
    v_half integer := cardinality(p_numbers) / 2;
BEGIN
    IF v_half > 4 THEN
        RETURN format(E'IF %s < %s THEN\n%s\nELSE\n%s\nEND IF;', p_number, p_numbers[v_half + 1],
            farwrite.choose_call(p_number, p_numbers[: v_half], p_calls[: v_half]),
            farwrite.choose_call(p_number, p_numbers[v_half + 1 :], p_calls[v_half + 1 :]));
    END IF;
    RETURN format(E'CASE %1$s\nWHEN 0 THEN NULL;\n%2$sELSE\n    RAISE EXCEPTION %3$L, %1$s USING ERRCODE = %4$L, SCHEMA = %5$L;\nEND CASE;',
        p_number,
        (SELECT string_agg(format(E'WHEN %s THEN %s;\n', u.number, u.call), '' ORDER BY u.number)
         FROM unnest(p_numbers, p_calls) AS u (number, call)),
        'no function is registered under number %', 'FW003', 'farwrite');
END $$;
