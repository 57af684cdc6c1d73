-- Checks a command's body against what is open, and puts its statements together.
CREATE OR REPLACE FUNCTION farwrite.plan_row(p_verb text, p_body jsonb) RETURNS farwrite.row_plan
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    v_open    farwrite.open_tables;
    v_plan    farwrite.row_plan;
    v_row     text := CASE WHEN p_verb IN ('insert', 'upsert') THEN 'row' WHEN p_verb = 'update' THEN 'set' END;
    v_in_row  boolean := p_verb IN ('insert', 'upsert');  -- whether the row holds its own key
    v_if      boolean := p_body ? 'if';
    v_given   text[]; -- columns that are written
    v_set     text[]; -- those of them that are not of the primary key
    v_key     text[]; -- columns that the key was given in
    v_compare text[];
    v_target  text;
    v_source  text;   -- a row from a parameter, as far as its number
    v_output  text;
    v_asked   text;   -- whether row t is as "if" says
BEGIN
    PERFORM farwrite.check_row_body(p_body, CASE p_verb WHEN 'update' THEN ARRAY['key', 'set']
        WHEN 'delete' THEN ARRAY['key'] ELSE ARRAY['row'] END, p_verb <> 'insert');
    SELECT o.* INTO v_open FROM farwrite.open_tables o WHERE o.name = p_body->>'table';
    IF NOT coalesce(CASE p_verb
        WHEN 'insert' THEN v_open.insertable IS NOT NULL
        WHEN 'update' THEN v_open.updatable IS NOT NULL
        WHEN 'upsert' THEN v_open.insertable IS NOT NULL AND v_open.updatable IS NOT NULL
        ELSE v_open.deletable END, false)
    THEN
        PERFORM farwrite.reject('not_allowed', format('table %s is not open for row.%s', to_json(left(p_body->>'table', 140)), p_verb));
    END IF;

    -- Exactly the primary key, except where the database fills it.
    v_given := ARRAY(SELECT jsonb_object_keys(p_body->v_row));
    v_key := CASE WHEN v_in_row THEN ARRAY(SELECT c FROM unnest(v_open.key_columns) c WHERE c = ANY (v_given))
                  ELSE ARRAY(SELECT jsonb_object_keys(p_body->'key')) END;
    v_plan.keyed := v_key @> v_open.key_columns AND v_open.key_columns @> v_key;
    IF NOT v_plan.keyed AND (p_verb <> 'insert' OR NOT (v_key || v_open.omittable) @> v_open.key_columns) THEN
        PERFORM farwrite.reject('bad_body', format('"%s" wants %s the columns of the primary key of %s: %s',
            CASE WHEN v_in_row THEN 'row' ELSE 'key' END, CASE WHEN v_in_row THEN 'all' ELSE 'exactly' END,
            v_open.name, array_to_string(v_open.key_columns, ', ')));
    END IF;

    v_set := ARRAY(SELECT c FROM unnest(v_given) c WHERE c <> ALL (v_open.key_columns));
    IF v_in_row THEN
        PERFORM farwrite.check_columns(v_open.name, v_given, v_open.insertable, 'for inserts');
    END IF;
    IF p_verb = 'update' THEN
        PERFORM farwrite.check_columns(v_open.name, v_given, v_open.updatable, 'for updates');
    ELSIF p_verb = 'upsert' THEN
        PERFORM farwrite.check_columns(v_open.name, v_set, v_open.updatable, 'for updates');
    END IF;
    v_compare := ARRAY(SELECT jsonb_object_keys(p_body->'if'));
    PERFORM farwrite.check_columns(v_open.name, v_compare, v_open.comparable, 'to an "if"');

    v_target := CASE WHEN v_open.partitioned THEN '' ELSE 'ONLY ' END || v_open.relation || ' AS t';
    v_source := 'pg_catalog.jsonb_populate_record(NULL::' || v_open.relation || ', $';
    v_output := CASE
        WHEN v_open.readable IS NULL THEN 'pg_catalog.to_jsonb(t.*)'
        WHEN v_open.readable = '{}' THEN '''{}''::pg_catalog.jsonb'
        ELSE (SELECT format('(SELECT pg_catalog.to_jsonb(o.*) FROM (SELECT %s) o)', string_agg(format('t.%I', c), ', '))
              FROM unnest(v_open.readable) c) END;
    -- As records: compared by each type's own equality, wherever it lives, and nulls are equal. And
    -- not as a join's condition, which could be sorted by.
    v_asked := CASE WHEN v_if THEN
        (SELECT format('(ROW(%s)::pg_catalog.record OPERATOR(pg_catalog.=) ROW(%s)::pg_catalog.record) IS TRUE',
                       string_agg(format('t.%I', c), ', '), string_agg(format('e.%I', c), ', '))
         FROM unnest(v_compare) c) END;

    v_plan.name := v_open.name;
    v_plan.key := 'SELECT ' || v_open.key_text || ' FROM ' || v_source || '1) k';
    IF v_if OR NOT v_in_row OR p_verb = 'upsert' AND v_set = '{}' THEN
        v_plan.look := format('SELECT %s, %s FROM %s1) k, %s%s WHERE %s FOR %s OF t',
            coalesce(v_asked, 'true'), v_output, v_source, CASE WHEN v_if THEN v_source || '2) e, ' ELSE '' END,
            v_target, v_open.key_match, CASE WHEN p_verb = 'delete' THEN 'UPDATE' ELSE 'NO KEY UPDATE' END);
    END IF;
    IF p_verb = 'insert' OR p_verb = 'upsert' AND NOT v_if THEN
        v_plan.change := format('INSERT INTO %s AS t ', v_open.relation)
            || CASE WHEN v_given = '{}' THEN 'DEFAULT VALUES' ELSE
                (SELECT format('(%s) SELECT %s FROM %s1) k', string_agg(format('%I', c), ', '), string_agg(format('k.%I', c), ', '), v_source)
                 FROM unnest(v_given) c) END
            || CASE WHEN v_plan.keyed THEN ' WHERE ' || v_open.key_text || ' OPERATOR(pg_catalog.=) $2' ELSE '' END
            || CASE WHEN p_verb = 'insert' THEN '' ELSE
                (SELECT format(' ON CONFLICT (%s) DO ', string_agg(format('%I', c), ', ')) FROM unnest(v_open.key_columns) c)
                || coalesce((SELECT 'UPDATE SET ' || string_agg(format('%1$I = excluded.%1$I', c), ', ') FROM unnest(v_set) c), 'NOTHING') END
            || ' RETURNING ' || v_output;
    ELSIF p_verb = 'delete' OR v_set <> '{}' THEN
        v_plan.change := CASE WHEN p_verb = 'delete' THEN format('DELETE FROM %s USING %s1) k', v_target, v_source)
            ELSE format('UPDATE %s SET %s FROM %s1) k, %s3) s', v_target,
                (SELECT string_agg(format('%1$I = s.%1$I', c), ', ') FROM unnest(v_set) c), v_source, v_source) END
            || CASE WHEN v_if THEN ', ' || v_source || '4) e' ELSE '' END
            || format(' WHERE %s AND %s OPERATOR(pg_catalog.=) $2', v_open.key_match, v_open.key_text)
            || CASE WHEN v_if THEN ' AND ' || v_asked ELSE '' END
            || ' RETURNING ' || v_output;
    END IF;
    RETURN v_plan;
END $$;
