-- Refuses a body that is not of its command's form: {"table": …} and exactly one object for each of
-- p_objects, and an "if" where p_may_if says so.
CREATE OR REPLACE FUNCTION farwrite.check_row_body(p_body jsonb, p_objects text[], p_may_if boolean) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    v_members text[] := 'table'::text || p_objects || CASE WHEN p_may_if THEN ARRAY['if'] END;
    v_member  text;
    v_wrong   text;
BEGIN
    IF jsonb_typeof(p_body) IS DISTINCT FROM 'object' THEN
        v_wrong := 'the body is not an object';
    ELSIF jsonb_typeof(p_body->'table') IS DISTINCT FROM 'string' THEN
        v_wrong := '"table" is not a string such as "app.users"';
    ELSIF p_body - v_members <> '{}' THEN
        v_wrong := format('%s is no member of this command''s body; its members are %s',
            (SELECT to_json(left(m, 100)) FROM jsonb_object_keys(p_body - v_members) m ORDER BY 1::text LIMIT 1),
            array_to_string(v_members, ', '));
    ELSE
        FOREACH v_member IN ARRAY p_objects LOOP
            IF jsonb_typeof(p_body->v_member) IS DISTINCT FROM 'object' THEN
                v_wrong := format('"%s" is not an object of columns and values', v_member);
            END IF;
        END LOOP;
        IF p_body->'set' = '{}' THEN
            v_wrong := '"set" is empty';
        ELSIF p_body ? 'if' AND (jsonb_typeof(p_body->'if') <> 'object' OR p_body->'if' = '{}') THEN
            v_wrong := '"if" is not an object of columns and values, or is empty';
        END IF;
    END IF;
    IF v_wrong IS NOT NULL THEN
        PERFORM farwrite.reject('bad_body', v_wrong);
    END IF;
END $$;
