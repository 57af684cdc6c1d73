-- Changes or deletes one row. The statement asks for key, row and "if" at once; only when it finds
-- nothing the row is locked and asked why. What it then finds in order came meanwhile, from
-- somebody else: then the lock makes the second time tell the truth.
CREATE OR REPLACE FUNCTION farwrite.change_row(p_plan farwrite.row_plan, p_key jsonb, p_set jsonb, p_if jsonb, p_meta farwrite.meta, p_absent text)
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
