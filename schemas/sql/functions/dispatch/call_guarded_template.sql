-- farwrite.call_guarded is made from it: runs function commands as farwrite.call_all does, in
-- subtransactions. A command's own fault becomes its rejection; everything else still fails the
-- batch. A subtransaction holds p_group commands at first, fewer while they fail, and up to p_group,
-- or a thirtieth of a large batch, while they succeed. At most 60 are used, since more than 64 in one
-- transaction slow down every snapshot, on standbys too: then it stops early, and done says how many
-- commands were settled.
--
-- PL/pgSQL keeps what evaluates an expression from one time to the next, but for one that an error
-- went through: until the transaction's end that one is set up anew for each command, and so is the
-- app's function behind it. So the functions are called within this loop, where there is one such
-- expression, and a refused command's companions are run again by another. Of 53 microseconds for a
-- command of 256 bytes where half are refused 40 are left (27 where none is). Subtransactions and
-- errors by themselves are one or two. Since they are that cheap, few commands share one: what a
-- refusal undoes is done again.
CREATE OR REPLACE FUNCTION farwrite.call_guarded_template(
    p_group integer, p_functions integer[], p_ids uuid[], p_names text[], p_versions integer[], p_keys text[], p_origins text[],
    p_sequences bigint[], p_at bigint[], p_bodies bytea, p_starts integer[], p_expires bigint[], p_contexts text[],
    INOUT outcomes text[], INOUT answers text[], OUT done integer)
LANGUAGE plpgsql AS $$
DECLARE
    c_subtransactions CONSTANT integer := 60;
    v_count   integer := cardinality(p_ids);
    v_budget  integer := c_subtransactions;
    -- Half of the subtransactions are enough for all commands while none is refused.
    v_group_max integer := greatest(p_group, 2 * v_count / c_subtransactions);
    v_group   integer := p_group;
    v_running integer;
    v_refused integer;
    v_last    integer;
    v_before  text[];
    v_state   text;
    v_message text;
    v_constraint text;
    v_schema  text;
    v_code    text;
    -- The constraints that may be deferred, and whether there are triggers that may; looked up once
    -- there is a refusal.
    v_deferrable text[];
    v_triggers boolean;
BEGIN
    done := 0;
    WHILE done < v_count AND v_budget > 0 LOOP
        v_budget := v_budget - 1;
        v_refused := 0;
        v_last := least(done + v_group, v_count);
        v_before := outcomes[done + 1 : v_last];
        BEGIN
            FOR j IN done + 1 .. v_last LOOP
                CONTINUE WHEN outcomes[j] IS NOT NULL;
                v_running := j;
                /*step*/
            END LOOP;
            done := v_last;
            v_group := least(v_group * 2, v_group_max);
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS v_state = RETURNED_SQLSTATE, v_message = MESSAGE_TEXT,
                v_constraint = CONSTRAINT_NAME, v_schema = SCHEMA_NAME, v_code = PG_DATATYPE_NAME;
            IF v_triggers IS NULL THEN
                SELECT array_agg(c.conname::text) FILTER (WHERE c.contype <> 't'), coalesce(bool_or(c.contype = 't'), false)
                INTO v_deferrable, v_triggers
                FROM pg_catalog.pg_constraint c WHERE c.condeferrable;
            END IF;
            -- What violates Farwrite's own tables is never a command's fault. And a constraint that
            -- may be deferred was perhaps checked too early, for its companions' sake: only the
            -- lone run is definitive. A trigger refuses with a code of its own choice.
            IF v_schema = 'farwrite' OR NOT farwrite.is_own_fault(v_state, v_constraint)
                OR v_triggers OR v_constraint = ANY (v_deferrable)
            THEN
                RAISE;
            END IF;
            v_refused := v_running;
            v_group := greatest(v_group / 2, 2);
        END;
        CONTINUE WHEN v_refused = 0;

        -- What came before it in its group is undone with it, and done again plain: it succeeded a
        -- moment ago. What comes after it was not reached.
        outcomes[done + 1 : v_last] := v_before;
        FOR j IN done + 1 .. v_refused - 1 LOOP
            CONTINUE WHEN outcomes[j] IS NOT NULL;
            /*step*/
        END LOOP;
        outcomes[v_refused] := 'rejected';
        answers[v_refused] := json_strip_nulls(json_build_object(
            'code', CASE WHEN v_state = 'P0001' THEN coalesce(nullif(v_code, ''), v_state) ELSE v_state END,
            'message', v_message, 'constraint', nullif(v_constraint, '')));
        done := v_refused;
    END LOOP;
    PERFORM pg_advisory_unlock_all();
END $$;
