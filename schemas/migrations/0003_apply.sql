-- A batch, as the worker's lane sends it: fence, look up, run, record; one transaction.
--
-- Codes of its own: FW001 the lane is not ours or not where we left it (fenced), FW002 a handler
-- ended the batch's transaction, FW003 no such function.

-- The fence, and the lane's new position in one: the first statement of every batch. It locks the
-- lane's row, so that a takeover waits for a batch in flight and no two batches run at once.
CREATE FUNCTION farwrite.fence(
    p_stream integer, p_lane integer, p_epoch uuid, p_from bigint, p_to bigint, p_to_at bigint,
    p_anchor_sequence bigint, p_anchor_at bigint, p_anchor_id text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    UPDATE farwrite.lanes
    SET sequence = p_to, sequence_at = p_to_at,
        anchor_sequence = p_anchor_sequence, anchor_at = p_anchor_at, anchor_id = p_anchor_id
    WHERE stream_id = p_stream AND lane = p_lane AND epoch = p_epoch AND sequence = p_from;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'lane % of stream % is not at % under epoch %', p_lane, p_stream, p_from, p_epoch
            USING ERRCODE = 'FW001', HINT = 'Another worker has taken over this database.';
    END IF;
END $$;

-- What the ledger knows of these ids. The bounds let the planner's run-time pruning leave all
-- partitions but one or two alone. A sequential scan, chosen while the ledger was empty, would be
-- kept by a cached plan as it grows: never here.
CREATE FUNCTION farwrite.look_up(p_ids uuid[])
RETURNS TABLE (command_id uuid, outcome farwrite.outcome, answer json, fingerprint uuid)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog SET enable_seqscan = off AS $$
DECLARE
    v_dated   uuid[];
    v_derived uuid[];
    v_first   uuid;
    v_last    uuid;
BEGIN
    SELECT array_agg(i) FILTER (WHERE dated), array_agg(i) FILTER (WHERE NOT dated)
    INTO v_dated, v_derived
    FROM (SELECT i, farwrite.is_dated(i) AS dated FROM unnest(p_ids) AS i) AS ids;
    IF v_dated IS NOT NULL THEN
        SELECT i INTO v_first FROM unnest(v_dated) AS i ORDER BY i LIMIT 1;
        SELECT i INTO v_last FROM unnest(v_dated) AS i ORDER BY i DESC LIMIT 1;
        RETURN QUERY SELECT l.command_id, l.outcome, l.answer, l.fingerprint FROM farwrite.ledger l
            WHERE l.command_id = ANY (v_dated) AND l.command_id BETWEEN v_first AND v_last;
    END IF;
    IF v_derived IS NOT NULL THEN
        RETURN QUERY SELECT l.command_id, l.outcome, l.answer, l.fingerprint FROM farwrite.ledger_derived l
            WHERE l.command_id = ANY (v_derived);
    END IF;
END $$;

-- Whether an id carries a time and so belongs into the partitioned ledger: a UUIDv7.
CREATE FUNCTION farwrite.is_dated(p_id uuid) RETURNS boolean
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN get_byte(uuid_send(p_id), 6) >> 4 = 7 AND get_byte(uuid_send(p_id), 8) >> 6 = 2;

-- Writes outcomes into the ledger. A repeated entry (a null outcome) is passed over.
CREATE FUNCTION farwrite.record(
    p_stream integer, p_ids uuid[], p_fingerprints uuid[], p_sequences bigint[],
    p_outcomes text[], p_answers text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    INSERT INTO farwrite.ledger (command_id, outcome, answer, fingerprint, stream_id, sequence)
    SELECT i.id, i.outcome::farwrite.outcome, i.answer::json, i.fingerprint, p_stream, i.sequence
    FROM unnest(p_ids, p_fingerprints, p_sequences, p_outcomes, p_answers)
        AS i (id, fingerprint, sequence, outcome, answer)
    WHERE i.outcome IS NOT NULL AND farwrite.is_dated(i.id);
    INSERT INTO farwrite.ledger_derived (command_id, outcome, answer, fingerprint, stream_id, sequence)
    SELECT i.id, i.outcome::farwrite.outcome, i.answer::json, i.fingerprint, p_stream, i.sequence
    FROM unnest(p_ids, p_fingerprints, p_sequences, p_outcomes, p_answers)
        AS i (id, fingerprint, sequence, outcome, answer)
    WHERE i.outcome IS NOT NULL AND NOT farwrite.is_dated(i.id);
END $$;

-- What a repeated id is answered with: the stored outcome, or a rejection where the id was used
-- for another command.
CREATE FUNCTION farwrite.repeated_answer(
    p_outcome farwrite.outcome, p_answer json, p_stored uuid, p_fingerprint uuid,
    OUT outcome text, OUT answer text)
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog AS $$
    SELECT CASE WHEN p_stored = p_fingerprint THEN p_outcome::text ELSE 'rejected' END,
           CASE WHEN p_stored = p_fingerprint THEN p_answer::text
                ELSE '{"code":"id_reused","message":"this command id was used for another command (its name, version, key or body differs); nothing was applied"}' END
$$;

-- What the ledger answers to each of these ids, by place (from 1); null where it knows nothing.
CREATE FUNCTION farwrite.known(p_ids uuid[], p_fingerprints uuid[], OUT outcomes text[], OUT answers text[])
LANGUAGE plpgsql STABLE SET search_path = pg_catalog AS $$
DECLARE
    r record;
BEGIN
    outcomes := array_fill(NULL::text, ARRAY[cardinality(p_ids)]);
    answers := outcomes;
    FOR r IN
        SELECT p.place, a.outcome, a.answer
        FROM farwrite.look_up(p_ids) l,
             array_position(p_ids, l.command_id) AS p (place),
             farwrite.repeated_answer(l.outcome, l.answer, l.fingerprint, p_fingerprints[p.place]) a
    LOOP
        outcomes[r.place] := r.outcome;
        answers[r.place] := r.answer;
    END LOOP;
END $$;

-- Opens a batch that the worker runs command by command (one with handlers in it): fence and
-- look-up. Answers what the ledger knows already, by place in p_ids (from 1), and the
-- transaction's id, which farwrite.close_batch compares.
CREATE FUNCTION farwrite.open_batch(
    p_stream integer, p_lane integer, p_epoch uuid, p_from bigint, p_to bigint, p_to_at bigint,
    p_anchor_sequence bigint, p_anchor_at bigint, p_anchor_id text,
    p_ids uuid[], p_fingerprints uuid[],
    OUT xid text, OUT outcomes text[], OUT answers text[])
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    PERFORM farwrite.fence(p_stream, p_lane, p_epoch, p_from, p_to, p_to_at, p_anchor_sequence, p_anchor_at, p_anchor_id);
    xid := pg_current_xact_id()::text;
    SELECT k.outcomes, k.answers INTO outcomes, answers FROM farwrite.known(p_ids, p_fingerprints) k;
END $$;

-- Closes such a batch: everything that its commands deferred is checked now, where it still can be
-- told whose it was, and the outcomes go into the ledger. Raises FW002 when this is no longer the
-- transaction that farwrite.open_batch began: a handler ended it, and what it committed is not
-- in the ledger.
CREATE FUNCTION farwrite.close_batch(
    p_xid text, p_stream integer, p_ids uuid[], p_fingerprints uuid[], p_sequences bigint[],
    p_outcomes text[], p_answers text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF pg_current_xact_id_if_assigned()::text IS DISTINCT FROM p_xid THEN
        RAISE EXCEPTION 'the batch''s transaction % was ended by one of its commands', p_xid
            USING ERRCODE = 'FW002', HINT = 'A handler must not commit or roll back: the worker does.';
    END IF;
    PERFORM farwrite.record(p_stream, p_ids, p_fingerprints, p_sequences, p_outcomes, p_answers);
END $$;

-- A batch of function commands in one statement.
--
-- p_group = 0 runs them plain: the first one that fails fails the batch. p_group > 0 runs them in
-- subtransactions of that many commands, and those of a failed group each in one of its own, where
-- a command's own fault (classes 22 and 23, P0001) becomes its rejection; everything else still
-- fails the batch. At most 60 subtransactions are used, since more than 64 in one transaction slow
-- down every snapshot, on standbys too: then it stops early, and the lane's position with it.
-- p_done says how many commands were settled.
--
-- The arrays are parallel, in the order of the stream, each id once.
CREATE FUNCTION farwrite.apply(
    p_stream integer, p_lane integer, p_epoch uuid, p_from bigint, p_to bigint, p_to_at bigint,
    p_at bigint[], p_group integer,
    p_ids uuid[], p_fingerprints uuid[], p_sequences bigint[], p_functions integer[],
    p_names text[], p_versions integer[], p_keys text[], p_origins text[], p_bodies text[],
    OUT done integer, OUT outcomes text[], OUT answers text[], OUT repeated boolean[])
LANGUAGE plpgsql AS $$
DECLARE
    c_subtransactions CONSTANT integer := 60;
    v_count  integer := cardinality(p_ids);
    v_budget integer := c_subtransactions;
    v_new    text[];
    v_last   integer;
    v_alone  boolean;
    i        integer := 0;
    v_state  text;
    v_message text;
    v_constraint text;
    v_schema text;
BEGIN
    PERFORM farwrite.fence(p_stream, p_lane, p_epoch, p_from, p_to, p_to_at,
        p_sequences[v_count], p_at[v_count], p_ids[v_count]::text);

    SELECT k.outcomes, k.answers INTO outcomes, answers FROM farwrite.known(p_ids, p_fingerprints) k;
    SELECT array_agg(o IS NOT NULL ORDER BY n) INTO repeated FROM unnest(outcomes) WITH ORDINALITY AS u (o, n);

    IF p_group = 0 THEN
        WHILE i < v_count LOOP
            i := i + 1;
            CONTINUE WHEN repeated[i];
            answers[i] := farwrite.call(p_functions[i], p_bodies[i]::jsonb,
                ROW(p_ids[i], p_names[i], p_versions[i], p_keys[i], p_origins[i], p_sequences[i],
                    to_timestamp(p_at[i] / 1e9))::farwrite.meta);
            outcomes[i] := 'applied';
        END LOOP;
    ELSE
        -- A group that fails costs one subtransaction and one more for each of its commands.
        WHILE i < v_count AND v_budget >= p_group + 1 LOOP
            v_last := least(i + p_group, v_count);
            v_alone := v_last = i + 1;
            IF NOT v_alone THEN
                v_budget := v_budget - 1;
                BEGIN
                    FOR j IN i + 1 .. v_last LOOP
                        CONTINUE WHEN repeated[j];
                        answers[j] := farwrite.call(p_functions[j], p_bodies[j]::jsonb,
                            ROW(p_ids[j], p_names[j], p_versions[j], p_keys[j], p_origins[j], p_sequences[j],
                                to_timestamp(p_at[j] / 1e9))::farwrite.meta);
                        outcomes[j] := 'applied';
                    END LOOP;
                EXCEPTION WHEN integrity_constraint_violation OR data_exception OR raise_exception THEN
                    v_alone := true;
                END;
            END IF;
            IF v_alone THEN
                FOR j IN i + 1 .. v_last LOOP
                    CONTINUE WHEN repeated[j];
                    v_budget := v_budget - 1;
                    BEGIN
                        answers[j] := farwrite.call(p_functions[j], p_bodies[j]::jsonb,
                            ROW(p_ids[j], p_names[j], p_versions[j], p_keys[j], p_origins[j], p_sequences[j],
                                to_timestamp(p_at[j] / 1e9))::farwrite.meta);
                        outcomes[j] := 'applied';
                    EXCEPTION WHEN integrity_constraint_violation OR data_exception OR raise_exception THEN
                        GET STACKED DIAGNOSTICS v_state = RETURNED_SQLSTATE, v_message = MESSAGE_TEXT,
                            v_constraint = CONSTRAINT_NAME, v_schema = SCHEMA_NAME;
                        -- What violates Farwrite's own tables is never a command's fault.
                        IF v_schema = 'farwrite' THEN
                            RAISE;
                        END IF;
                        outcomes[j] := 'rejected';
                        answers[j] := json_strip_nulls(json_build_object('code', v_state,
                            'message', v_message, 'constraint', nullif(v_constraint, '')));
                    END;
                END LOOP;
            END IF;
            i := v_last;
        END LOOP;
        IF i < v_count THEN
            UPDATE farwrite.lanes
            SET sequence = p_sequences[i], sequence_at = p_at[i],
                anchor_sequence = p_sequences[i], anchor_at = p_at[i], anchor_id = p_ids[i]::text
            WHERE stream_id = p_stream AND lane = p_lane;
        END IF;
    END IF;
    done := i;

    -- What was not reached is null already, and what is repeated must not be recorded again.
    v_new := outcomes;
    FOR j IN 1 .. v_count LOOP
        IF repeated[j] THEN
            v_new[j] := NULL;
        END IF;
    END LOOP;
    PERFORM farwrite.record(p_stream, p_ids, p_fingerprints, p_sequences, v_new, answers);
END $$;
