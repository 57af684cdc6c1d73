-- Opens a table for row commands; again replaces what was open before.
--   insertable  columns that row.insert may give; null: no inserts.
--   updatable   columns that row.update may set; null: no updates. Never of the primary key.
--   deletable   whether row.delete may be used.
--   readable    columns that outputs show; null: all, also those that are added later.
CREATE OR REPLACE FUNCTION farwrite.open_table(
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
