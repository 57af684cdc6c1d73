-- Row commands: row.insert, row.update, row.upsert and row.delete change rows of tables that the
-- owner opened, and need no code. Nothing is open by itself.
--
-- Every statement is put together from what farwrite.open_table stored. A name from a body is only
-- ever compared with those names, a value only ever a parameter. Statements are planned anew for
-- each command: a table that was altered is met as it is.
--
-- What writes has no search_path of its own, because an app's triggers would inherit it; so the
-- statements name every schema, and what puts them together is a function apart.

-- The tables that are open. Names, not oids: they outlive a table that is made again.
CREATE TABLE farwrite.open_tables (
    name        text PRIMARY KEY,         -- schema.table, without quotes, as bodies write it
    relation    text NOT NULL,            -- the same for SQL, quoted where it must be
    partitioned boolean NOT NULL,         -- if not, only the table itself is changed, never what inherits from it
    key_columns text[] NOT NULL,          -- of the primary key, in its order
    omittable   text[] NOT NULL,          -- those of them that fill themselves when an insert leaves them out
    insertable  text[],                   -- null: no inserts
    updatable   text[],                   -- null: no updates; upserts need both
    deletable   boolean NOT NULL,
    readable    text[],                   -- what outputs show; null: every column, also a later one
    comparable  text[] NOT NULL,          -- what an "if" may name
    key_match   text NOT NULL,            -- SQL: whether row t has the key k
    key_text    text NOT NULL,            -- SQL: the key that a command of row k must have
    opened_by   text NOT NULL DEFAULT session_user,
    opened_at   timestamptz NOT NULL DEFAULT now()
);

-- The name of a table in farwrite.open_tables. Names with dots in them, which could be mistaken
-- for others, are never opened.
CREATE FUNCTION farwrite.open_name(p_table regclass) RETURNS text
LANGUAGE sql STABLE STRICT SET search_path = pg_catalog AS $$
    SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = p_table
$$;

-- The key of a row's commands: table:value,value. Where that would be longer than a key may be, or
-- could not travel in a header line (control characters, white space at its end), a hash stands for
-- the values: table:# and the SHA-256 of value,value in UTF-8, in hexadecimal digits. Null where a
-- value is.
CREATE FUNCTION farwrite.key_of(p_table text, p_values text[]) RETURNS text
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

-- A key's value as text, whatever the session's settings are.
CREATE FUNCTION farwrite.key_value(p_value anyelement) RETURNS text
LANGUAGE plpgsql STABLE STRICT SET search_path = pg_catalog
SET timezone = 'UTC' SET datestyle = 'ISO, MDY' SET bytea_output = 'hex' AS $$
BEGIN
    RETURN p_value::text;
END $$;

-- Opens a table for row commands; again replaces what was open before.
--   insertable  columns that row.insert may give; null: no inserts.
--   updatable   columns that row.update may set; null: no updates. Never of the primary key.
--   deletable   whether row.delete may be used.
--   readable    columns that outputs show; null: all, also those that are added later.
CREATE FUNCTION farwrite.open_table(
    p_table regclass, insertable text[] DEFAULT NULL, updatable text[] DEFAULT NULL,
    deletable boolean DEFAULT false, readable text[] DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    r record;
    v_open   farwrite.open_tables;
    v_kind   "char";
    v_schema text;
    v_stays  "char";
    v_key    pg_index;
    v_type   pg_type;
    v_texts  text[] := '{}';
    v_text   text;
    v_column text;
BEGIN
    SELECT n.nspname || '.' || c.relname, format('%I.%I', n.nspname, c.relname), n.nspname, c.relkind, c.relpersistence
    INTO v_open.name, v_open.relation, v_schema, v_kind, v_stays
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = p_table;
    IF v_schema IN ('farwrite', 'information_schema') OR v_schema LIKE 'pg\_%' THEN
        RAISE EXCEPTION 'tables of schema % are never open', v_schema USING ERRCODE = '42501';
    ELSIF v_kind IS NULL OR v_kind NOT IN ('r', 'p') THEN
        RAISE EXCEPTION '% is not a table', p_table USING ERRCODE = '42809',
            HINT = 'Tables and partitioned tables can be opened; write a function for a view.';
    ELSIF v_stays <> 'p' THEN
        RAISE EXCEPTION '% is unlogged: a crash empties it, and no replica has it', p_table USING ERRCODE = '42809',
            HINT = 'ALTER TABLE … SET LOGGED.';
    ELSIF v_open.name ~ '\..*\.|[[:cntrl:]]' THEN
        RAISE EXCEPTION '%: a table whose name or schema''s name has a dot or a control character cannot be opened', v_open.relation
            USING ERRCODE = '42602', HINT = 'Bodies and keys name it as schema.table.';
    END IF;

    -- An absent column passes through its type's input as null, which such a type would refuse.
    BEGIN
        EXECUTE format('SELECT FROM jsonb_populate_record(NULL::%s, ''{}'')', v_open.relation);
    EXCEPTION WHEN not_null_violation OR check_violation THEN
        RAISE EXCEPTION '% has a column of a domain that refuses null', p_table USING ERRCODE = '0A000', DETAIL = SQLERRM,
            HINT = 'Put NOT NULL at the column, not at the domain.';
    END;

    SELECT i.* INTO v_key FROM pg_index i WHERE i.indrelid = p_table AND i.indisprimary;
    IF NOT FOUND THEN
        RAISE EXCEPTION '% has no primary key', p_table USING ERRCODE = '42P16',
            HINT = 'Row commands find their row by it: ALTER TABLE … ADD PRIMARY KEY.';
    ELSIF NOT v_key.indimmediate THEN
        RAISE EXCEPTION 'the primary key of % is deferrable', p_table USING ERRCODE = '42P16',
            HINT = 'Until it is checked it does not tell one row from another.';
    END IF;
    v_open.key_columns := '{}';
    v_open.omittable := '{}';
    FOR r IN
        SELECT a.attname, a.atttypid, a.atthasdef OR a.attidentity <> '' AS fills,
               coalesce(NOT l.collisdeterministic, false) AS loose, format('OPERATOR(%I.%s)', n.nspname, o.oprname) AS equals
        FROM unnest(v_key.indkey::int2[], v_key.indclass::oid[]) WITH ORDINALITY AS k (attnum, opclass, place)
        JOIN pg_attribute a ON a.attrelid = p_table AND a.attnum = k.attnum
        JOIN pg_opclass c ON c.oid = k.opclass
        JOIN pg_amop m ON m.amopfamily = c.opcfamily AND m.amoplefttype = c.opcintype
            AND m.amoprighttype = c.opcintype AND m.amopstrategy = CASE c.opcmethod WHEN 403 THEN 3 END
        JOIN pg_operator o ON o.oid = m.amopopr
        JOIN pg_namespace n ON n.oid = o.oprnamespace
        LEFT JOIN pg_collation l ON l.oid = a.attcollation
        WHERE k.place <= v_key.indnkeyatts
        ORDER BY k.place
    LOOP
        SELECT t.* INTO v_type FROM pg_type t WHERE t.oid = r.atttypid;
        WHILE v_type.typtype = 'd' LOOP
            SELECT t.* INTO v_type FROM pg_type t WHERE t.oid = v_type.typbasetype;
        END LOOP;
        -- Commands of one row have one key only if equal values have one text.
        IF r.loose OR v_type.typtype NOT IN ('b', 'e') OR v_type.typcategory = 'A'
            OR v_type.typname IN ('float4', 'float8', 'interval', 'jsonb', 'money', 'citext')
        THEN
            RAISE EXCEPTION 'column % of the primary key of % has equal values that are written differently', quote_ident(r.attname), p_table
                USING ERRCODE = '0A000', DETAIL = format('Its type is %s.', format_type(r.atttypid, NULL)),
                      HINT = 'The key of a row''s commands is made of them: use a type such as bigint, uuid, text or timestamptz.';
        END IF;
        v_texts := v_texts || format(CASE
            WHEN v_type.typname = 'numeric' THEN 'pg_catalog.trim_scale(k.%I)::pg_catalog.text'
            WHEN v_type.typtype = 'e' OR v_type.typname IN ('int2', 'int4', 'int8', 'oid', 'text', 'varchar', 'bpchar', 'name', 'uuid', 'bool')
                THEN 'k.%I::pg_catalog.text'
            ELSE 'farwrite.key_value(k.%I)' END || ' COLLATE pg_catalog."C"', r.attname);
        v_open.key_match := concat_ws(' AND ', v_open.key_match, format('t.%1$I %2$s k.%1$I', r.attname, r.equals));
        v_open.key_columns := v_open.key_columns || r.attname::text;
        IF r.fills THEN
            v_open.omittable := v_open.omittable || r.attname::text;
        END IF;
    END LOOP;
    IF cardinality(v_open.key_columns) <> v_key.indnkeyatts THEN
        RAISE EXCEPTION 'the primary key of % is not a B-tree', p_table USING ERRCODE = '0A000';
    END IF;
    v_open.key_text := format('farwrite.key_of(%L, ARRAY[%s]) COLLATE pg_catalog."C"', v_open.name, array_to_string(v_texts, ', '));

    FOR r IN
        SELECT u.list, u.name, a.attname IS NOT NULL AS exists, a.attgenerated <> '' OR a.attidentity = 'a' AS generated
        FROM (SELECT 'insertable' AS list, c AS name FROM unnest(open_table.insertable) c
              UNION ALL SELECT 'updatable', c FROM unnest(open_table.updatable) c
              UNION ALL SELECT 'readable', c FROM unnest(open_table.readable) c) u
        LEFT JOIN pg_attribute a ON a.attrelid = p_table AND a.attname = u.name AND a.attnum > 0 AND NOT a.attisdropped
    LOOP
        IF NOT r.exists THEN
            RAISE EXCEPTION '%: % has no column %', r.list, p_table, coalesce(quote_ident(r.name), 'NULL') USING ERRCODE = '42703';
        ELSIF r.generated AND r.list <> 'readable' THEN
            RAISE EXCEPTION '%: column % of % is always generated', r.list, quote_ident(r.name), p_table USING ERRCODE = '428C9';
        ELSIF r.list = 'updatable' AND r.name = ANY (v_open.key_columns) THEN
            RAISE EXCEPTION 'updatable: column % is of the primary key of %', quote_ident(r.name), p_table USING ERRCODE = '42P16',
                HINT = 'A row keeps its key, by which its commands are ordered.';
        END IF;
    END LOOP;
    FOREACH v_column IN ARRAY v_open.key_columns LOOP
        IF v_column <> ALL (open_table.insertable) AND v_column <> ALL (v_open.omittable) THEN
            RAISE EXCEPTION 'insertable: column % of the primary key of % is missing, and has no default', quote_ident(v_column), p_table
                USING ERRCODE = '42P16';
        END IF;
    END LOOP;

    -- Some types (json, xml, point) have no equality, nor what is made of them.
    v_open.comparable := '{}';
    FOR v_column IN
        SELECT a.attname FROM pg_attribute a
        WHERE a.attrelid = p_table AND a.attnum > 0 AND NOT a.attisdropped
          AND (open_table.readable IS NULL
               OR a.attname = ANY (v_open.key_columns || open_table.insertable || open_table.updatable || open_table.readable))
    LOOP
        BEGIN
            EXECUTE format('SELECT DISTINCT t.%I FROM jsonb_populate_record(NULL::%s, ''{}'') t', v_column, v_open.relation);
            v_open.comparable := v_open.comparable || v_column;
        EXCEPTION WHEN undefined_function THEN
            NULL;
        END;
    END LOOP;

    v_open.partitioned := v_kind = 'p';
    v_open.insertable := open_table.insertable;
    v_open.updatable := open_table.updatable;
    v_open.deletable := coalesce(open_table.deletable, false);
    v_open.readable := open_table.readable;
    v_open.opened_by := session_user;
    v_open.opened_at := now();
    -- One statement, so that no command finds the table closed meanwhile.
    INSERT INTO farwrite.open_tables VALUES (v_open.*)
    ON CONFLICT (name) DO UPDATE
    SET relation = excluded.relation, partitioned = excluded.partitioned, key_columns = excluded.key_columns,
        omittable = excluded.omittable, insertable = excluded.insertable, updatable = excluded.updatable,
        deletable = excluded.deletable, readable = excluded.readable, comparable = excluded.comparable,
        key_match = excluded.key_match, key_text = excluded.key_text,
        opened_by = excluded.opened_by, opened_at = excluded.opened_at;
END $$;

-- Closes a table; answers whether it was open.
CREATE FUNCTION farwrite.close_table(p_table regclass) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    DELETE FROM farwrite.open_tables o WHERE o.name = farwrite.open_name(p_table);
    RETURN FOUND;
END $$;

-- The key that commands of a row must have, for who publishes them. p_key holds the columns of the
-- primary key; it may hold others. The same expression checks the commands.
CREATE FUNCTION farwrite.row_key(p_table regclass, p_key jsonb) RETURNS text
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_open farwrite.open_tables;
    v_key  text;
BEGIN
    SELECT o.* INTO v_open FROM farwrite.open_tables o WHERE o.name = farwrite.open_name(p_table);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'table % is not open', p_table USING ERRCODE = '42501', HINT = 'farwrite.open_table opens it.';
    END IF;
    EXECUTE 'SELECT ' || v_open.key_text || ' FROM pg_catalog.jsonb_populate_record(NULL::' || v_open.relation || ', $1) k'
        INTO v_key USING p_key;
    IF v_key IS NULL THEN
        RAISE EXCEPTION 'the key of % wants values for: %', p_table, array_to_string(v_open.key_columns, ', ') USING ERRCODE = '22023';
    END IF;
    RETURN v_key;
END $$;

-- The statements of one row command.
CREATE TYPE farwrite.row_plan AS (
    name   text,    -- the table, for messages
    change text,    -- changes the row and answers it; $1 key or row, $2 the command's key, $3 set, $4 if
    look   text,    -- locks the row; answers whether it is as "if" says, and the row; $1 key, $2 if;
                    -- null where a change that answers no row was suppressed
    key    text,    -- answers the key that the command must have; $1 key or row
    keyed  boolean  -- whether there is such a key: not for a row whose key the database makes
);

-- Refuses a body that is not of its command's form: {"table": …} and exactly one object for each of
-- p_objects, and an "if" where p_may_if says so.
CREATE FUNCTION farwrite.check_row_body(p_body jsonb, p_objects text[], p_may_if boolean) RETURNS void
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

-- Refuses columns that are not in the list that the owner opened.
CREATE FUNCTION farwrite.check_columns(p_table text, p_given text[], p_open text[], p_what text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    v_closed text := (SELECT c FROM unnest(p_given) c WHERE c <> ALL (p_open) ORDER BY c LIMIT 1);
BEGIN
    IF v_closed IS NOT NULL THEN
        PERFORM farwrite.reject('not_allowed', format('column %s of %s is not open %s', to_json(left(v_closed, 100)), p_table, p_what));
    END IF;
END $$;

-- Checks a command's body against what is open, and puts its statements together.
CREATE FUNCTION farwrite.plan_row(p_verb text, p_body jsonb) RETURNS farwrite.row_plan
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

-- Refuses a command that has another key than its row. p_row holds the row's key.
CREATE FUNCTION farwrite.check_row_key(p_plan farwrite.row_plan, p_row jsonb, p_key text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_key text;
BEGIN
    IF NOT p_plan.keyed THEN
        RETURN;
    END IF;
    EXECUTE p_plan.key INTO v_key USING p_row;
    IF v_key IS NULL THEN
        PERFORM farwrite.reject('bad_body', pg_catalog.format('a column of the primary key of %s is null', p_plan.name));
    ELSIF p_key IS DISTINCT FROM v_key THEN
        PERFORM farwrite.reject('bad_key', pg_catalog.format('a command of this row has the key %s, not %s', v_key, coalesce(p_key, 'none')));
    END IF;
END $$;

-- Changes or deletes one row. The statement asks for key, row and "if" at once; only when it finds
-- nothing the row is locked and asked why. What it then finds in order came meanwhile, from
-- somebody else: then the lock makes the second time tell the truth.
CREATE FUNCTION farwrite.change_row(p_plan farwrite.row_plan, p_key jsonb, p_set jsonb, p_if jsonb, p_meta farwrite.meta, p_absent text)
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    v_output jsonb;
    v_count  bigint;
    v_as_if  boolean;
    v_stored jsonb;
BEGIN
    FOR i IN 1 .. 2 LOOP
        IF p_plan.change IS NOT NULL THEN
            EXECUTE p_plan.change INTO v_output USING p_key, p_meta.key, p_set, p_if;
            GET DIAGNOSTICS v_count = ROW_COUNT;
            IF v_count = 1 THEN
                RETURN v_output;
            ELSIF v_count > 1 THEN
                RAISE EXCEPTION 'the primary key of % is not the one that it was opened with', p_plan.name
                    USING ERRCODE = '42P16', HINT = 'Open it again with farwrite.open_table.';
            END IF;
        END IF;
        PERFORM farwrite.check_row_key(p_plan, p_key, p_meta.key);
        EXECUTE p_plan.look INTO v_as_if, v_stored USING p_key, p_if;
        IF v_stored IS NULL THEN
            PERFORM farwrite.reject(p_absent, pg_catalog.format('%s has no row with this key', p_plan.name));
        ELSIF NOT v_as_if THEN
            PERFORM farwrite.reject('precondition', pg_catalog.format('the row of %s is not as "if" says', p_plan.name));
        ELSIF p_plan.change IS NULL THEN
            RETURN v_stored;
        END IF;
    END LOOP;
    PERFORM farwrite.reject('suppressed', pg_catalog.format('the database kept the row of %s from being changed: a trigger or a policy', p_plan.name));
END $$;

-- {"table": "app.users", "row": {…}}
CREATE FUNCTION farwrite.row_insert(p_body jsonb, p_meta farwrite.meta) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    v_plan   farwrite.row_plan := farwrite.plan_row('insert', p_body);
    v_output jsonb;
BEGIN
    EXECUTE v_plan.change INTO v_output USING p_body->'row', p_meta.key;
    IF v_output IS NULL THEN
        PERFORM farwrite.check_row_key(v_plan, p_body->'row', p_meta.key);
        PERFORM farwrite.reject('suppressed', pg_catalog.format('the database kept the row of %s from being stored: a trigger', v_plan.name));
    END IF;
    RETURN v_output;
END $$;

-- {"table": "app.users", "key": {…}, "set": {…}, "if": {…}}
CREATE FUNCTION farwrite.row_update(p_body jsonb, p_meta farwrite.meta) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    RETURN farwrite.change_row(farwrite.plan_row('update', p_body), p_body->'key', p_body->'set', p_body->'if', p_meta, 'not_found');
END $$;

-- {"table": "app.users", "row": {…}, "if": {…}}. With an "if" it is an update of a row that must be
-- there. A row of nothing but its key is stored if it is absent, and not touched if it is there.
CREATE FUNCTION farwrite.row_upsert(p_body jsonb, p_meta farwrite.meta) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    v_plan   farwrite.row_plan := farwrite.plan_row('upsert', p_body);
    v_row    jsonb := p_body->'row';
    v_output jsonb;
    v_as_if  boolean;
BEGIN
    IF p_body ? 'if' THEN
        RETURN farwrite.change_row(v_plan, v_row, v_row, p_body->'if', p_meta, 'precondition');
    END IF;
    -- Twice: a row that is there may be deleted by somebody before it was looked at.
    FOR i IN 1 .. 2 LOOP
        EXECUTE v_plan.change INTO v_output USING v_row, p_meta.key;
        IF v_output IS NULL THEN
            PERFORM farwrite.check_row_key(v_plan, v_row, p_meta.key);
            EXIT WHEN v_plan.look IS NULL;
            EXECUTE v_plan.look INTO v_as_if, v_output USING v_row;
        END IF;
        IF v_output IS NOT NULL THEN
            RETURN v_output;
        END IF;
    END LOOP;
    PERFORM farwrite.reject('suppressed', pg_catalog.format('the database kept the row of %s from being stored: a trigger', v_plan.name));
END $$;

-- {"table": "app.users", "key": {…}, "if": {…}}
CREATE FUNCTION farwrite.row_delete(p_body jsonb, p_meta farwrite.meta) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    RETURN farwrite.change_row(farwrite.plan_row('delete', p_body), p_body->'key', NULL, p_body->'if', p_meta, 'not_found');
END $$;

SELECT farwrite.register('row.insert', 'farwrite.row_insert(jsonb,farwrite.meta)');
SELECT farwrite.register('row.update', 'farwrite.row_update(jsonb,farwrite.meta)');
SELECT farwrite.register('row.upsert', 'farwrite.row_upsert(jsonb,farwrite.meta)');
SELECT farwrite.register('row.delete', 'farwrite.row_delete(jsonb,farwrite.meta)');
