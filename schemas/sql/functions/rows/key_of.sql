-- The key of a row's commands: table:value,value. Where that would be longer than a key may be, or
-- could not travel in a header line (control characters, white space at its end), a hash stands for
-- the values: table:# and the SHA-256 of value,value in UTF-8, in hexadecimal digits. Null where a
-- value is.
CREATE OR REPLACE FUNCTION farwrite.key_of(p_table text, p_values text[]) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog AS $$
DECLARE
    v_values text COLLATE "C" := array_to_string(p_values, ',');
BEGIN
    IF array_position(p_values, NULL) IS NOT NULL THEN
        RETURN NULL;
    ELSIF octet_length(p_table) + 1 + octet_length(v_values) > 512
        OR v_values ~ '[\u0001-\u001f\u007f-\u009f]|[ \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]$'
    THEN
        RETURN p_table || ':#' || encode(sha256(convert_to(v_values, 'UTF8')), 'hex');
    END IF;
    RETURN p_table || ':' || v_values;
END $$;
