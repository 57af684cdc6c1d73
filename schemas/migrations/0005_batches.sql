-- Batches, with what may wait. A lane applies in one of two ways:
--   farwrite.apply: one statement, for functions, while nothing of the lane is parked or paused.
--   staged: farwrite.open_batch tells what is known, the worker sorts the commands by it, runs
--   them (farwrite.run for functions), and farwrite.close_batch records; one transaction.
--
-- Codes of Farwrite's own, with SCHEMA = 'farwrite': FW001 fenced, FW002 a handler ended the
-- batch's transaction, FW003 no such function, FW004 the batch wants to be staged, FW005 a function
-- in set form answered a wrong number of outputs, FW010 a function asks to be tried later.

-- A worker of the version before knows nothing of parked commands, and must not apply beside them:
-- its next batch is answered as if another worker had taken over, and it ends.
CREATE OR REPLACE FUNCTION farwrite.apply(
    p_stream integer, p_lane integer, p_epoch uuid, p_from bigint, p_to bigint, p_to_at bigint,
    p_at bigint[], p_group integer,
    p_ids uuid[], p_fingerprints uuid[], p_sequences bigint[], p_functions integer[],
    p_names text[], p_versions integer[], p_keys text[], p_origins text[], p_bodies text[],
    OUT done integer, OUT outcomes text[], OUT answers text[], OUT repeated boolean[])
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the farwrite schema was migrated past this worker' USING ERRCODE = 'FW001', HINT = 'Upgrade the worker.';
END $$;
CREATE OR REPLACE FUNCTION farwrite.open_batch(
    p_stream integer, p_lane integer, p_epoch uuid, p_from bigint, p_to bigint, p_to_at bigint,
    p_anchor_sequence bigint, p_anchor_at bigint, p_anchor_id text,
    p_ids uuid[], p_fingerprints uuid[],
    OUT xid text, OUT outcomes text[], OUT answers text[])
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    RAISE EXCEPTION 'the farwrite schema was migrated past this worker' USING ERRCODE = 'FW001', HINT = 'Upgrade the worker.';
END $$;
DROP FUNCTION farwrite.close_batch(text, integer, uuid[], uuid[], bigint[], text[], text[]);
DROP FUNCTION farwrite.known(uuid[], uuid[]);
DROP FUNCTION farwrite.record(integer, uuid[], uuid[], bigint[], text[], text[]);
DROP FUNCTION farwrite.fence(integer, integer, uuid, bigint, bigint, bigint, bigint, bigint, text);

-- The fence, and the lane's new position in one: the first statement of every batch. It locks the
-- lane's row, so that a takeover waits for a batch in flight and no two batches run at once; what
-- it answers holds until the transaction ends.
CREATE FUNCTION farwrite.fence(
    p_stream integer, p_lane integer, p_epoch uuid, p_from bigint, p_to bigint, p_to_at bigint,
    p_anchor_sequence bigint, p_anchor_at bigint, p_anchor_id text, OUT parked bigint, OUT paused boolean)
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    -- A batch of parked commands stays where the lane is.
    UPDATE farwrite.lanes l
    SET sequence = p_to, sequence_at = CASE WHEN p_to = p_from THEN l.sequence_at ELSE p_to_at END,
        anchor_sequence = p_anchor_sequence, anchor_at = p_anchor_at, anchor_id = p_anchor_id
    WHERE l.stream_id = p_stream AND l.lane = p_lane AND l.epoch = p_epoch AND l.sequence = p_from
    RETURNING l.parked, l.paused INTO parked, paused;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'lane % of stream % is not at % under epoch %', p_lane, p_stream, p_from, p_epoch
            USING ERRCODE = 'FW001', SCHEMA = 'farwrite', HINT = 'Another worker has taken over this database.';
    END IF;
END $$;

-- Writes outcomes into the ledger. An entry without an outcome is passed over. p_attempts may be
-- empty: then each took one. Batches with an id that carries no time are few: only those are looked
-- through a second time.
CREATE FUNCTION farwrite.record(
    p_stream integer, p_ids uuid[], p_fingerprints uuid[], p_sequences bigint[], p_at bigint[],
    p_attempts integer[], p_outcomes text[], p_answers text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    v_derived boolean := EXISTS (SELECT FROM unnest(p_ids) AS i WHERE NOT farwrite.is_dated(i));
BEGIN
    INSERT INTO farwrite.ledger (command_id, outcome, answer, fingerprint, stream_id, sequence, attempts, published_at)
    SELECT i.id, i.outcome::farwrite.outcome, i.answer::json, i.fingerprint, p_stream, i.sequence,
           coalesce(i.attempts, 1), to_timestamp(i.at / 1e9)
    FROM unnest(p_ids, p_fingerprints, p_sequences, p_at, p_attempts, p_outcomes, p_answers)
        AS i (id, fingerprint, sequence, at, attempts, outcome, answer)
    WHERE i.outcome IS NOT NULL AND (NOT v_derived OR farwrite.is_dated(i.id));
    IF v_derived THEN
        INSERT INTO farwrite.ledger_derived (command_id, outcome, answer, fingerprint, stream_id, sequence, attempts, published_at)
        SELECT i.id, i.outcome::farwrite.outcome, i.answer::json, i.fingerprint, p_stream, i.sequence,
               coalesce(i.attempts, 1), to_timestamp(i.at / 1e9)
        FROM unnest(p_ids, p_fingerprints, p_sequences, p_at, p_attempts, p_outcomes, p_answers)
            AS i (id, fingerprint, sequence, at, attempts, outcome, answer)
        WHERE i.outcome IS NOT NULL AND NOT farwrite.is_dated(i.id);
    END IF;
END $$;

-- What a repeated id is answered with: the stored outcome, or a rejection where the id was used
-- for another command. A stored fingerprint of zeros is a cancellation of whatever comes.
CREATE OR REPLACE FUNCTION farwrite.repeated_answer(
    p_outcome farwrite.outcome, p_answer json, p_stored uuid, p_fingerprint uuid,
    OUT outcome text, OUT answer text)
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog AS $$
    SELECT CASE WHEN is_same THEN p_outcome::text ELSE 'rejected' END,
           CASE WHEN is_same THEN p_answer::text
                ELSE '{"code":"id_reused","message":"this command id was used for another command (its name, version, key or body differs); nothing was applied"}' END
    FROM (SELECT p_stored = p_fingerprint OR p_stored = '00000000-0000-0000-0000-000000000000') AS s (is_same)
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
             unnest(p_ids) WITH ORDINALITY AS p (id, place),
             farwrite.repeated_answer(l.outcome, l.answer, l.fingerprint, p_fingerprints[p.place]) a
        WHERE p.id = l.command_id
    LOOP
        outcomes[r.place] := r.outcome;
        answers[r.place] := r.answer;
    END LOOP;
END $$;

-- Whether an SQLSTATE is the command's own fault: it is rejected. The worker's verdict table says
-- the same, and a test compares the two. Classes: PostgreSQL's documentation, appendix A; a class
-- from 5 to 9 or I to Z that is not PostgreSQL's was chosen by the app, to refuse in its own words.
-- Its names are bound when it is made, so it needs no search_path, and can be inlined.
CREATE FUNCTION farwrite.is_own_fault(p_state text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN left(p_state, 2) IN ('20', '21', '22', '23', '27', '44')
    OR p_state IN ('P0001', 'P0002', 'P0003')
    OR (left(p_state, 1) ~ '[5-9I-Z]' AND left(p_state, 2) NOT IN ('53', '54', '55', '57', '58', '72', 'P0', 'XX'));

-- Runs function commands in order: those that have no outcome yet. Between commands it puts
-- settings, role and session locks back, and checks what was deferred, so that nothing of one
-- command meets another; for a single command the commit does that.
--
-- p_group = 0 runs them plain: the first one that fails fails the batch. p_group > 0 runs them in
-- subtransactions of that many commands at first, more while they succeed and fewer while they
-- fail. A command's own fault becomes its rejection; everything else still fails the batch. At most
-- 60 subtransactions are used, since more than 64 in one transaction slow down every snapshot, on
-- standbys too: then it stops early, and done says how many were settled.
--
-- The arrays are parallel. p_set_forms, p_expires (nanoseconds since 1970) and p_contexts may be
-- empty: then nothing is in set form, expires, or has a context.
CREATE FUNCTION farwrite.run(
    p_group integer, p_functions integer[], p_set_forms boolean[], p_ids uuid[], p_names text[], p_versions integer[],
    p_keys text[], p_origins text[], p_sequences bigint[], p_at bigint[], p_bodies text[],
    p_expires bigint[], p_contexts text[],
    INOUT outcomes text[], INOUT answers text[], OUT done integer)
LANGUAGE plpgsql AS $$
DECLARE
    c_subtransactions CONSTANT integer := 60;
    c_group_max CONSTANT integer := 32;
    v_count   integer := cardinality(p_ids);
    v_budget  integer := c_subtransactions;
    v_group   integer := p_group;
    v_deferrable boolean;
    v_running integer;
    v_plain_to integer := CASE WHEN p_group = 0 THEN cardinality(p_ids) ELSE 0 END;
    v_context boolean := cardinality(p_contexts) > 0;
    v_expires boolean := cardinality(p_expires) > 0;
    v_last    integer;
    i         integer := 0;
    v_before  text[];
    v_bodies  jsonb[];
    v_metas   farwrite.meta[];
    v_outputs text[];
    v_state   text;
    v_message text;
    v_constraint text;
    v_schema  text;
    v_code    text;
BEGIN
    WHILE i < v_count AND (i < v_plain_to OR v_budget > 0) LOOP
        IF i < v_plain_to THEN
            i := i + 1;
            CONTINUE WHEN outcomes[i] IS NOT NULL;
            IF v_expires AND p_expires[i] <= extract(epoch FROM clock_timestamp()) * 1e9 THEN
                outcomes[i] := 'expired';
                CONTINUE;
            END IF;
            IF p_set_forms[i] AND NOT v_context THEN
                -- Everything that follows and is the same function goes into one call.
                v_last := i;
                v_bodies := ARRAY[p_bodies[i]::jsonb];
                v_metas := ARRAY[ROW(p_ids[i], p_names[i], p_versions[i], p_keys[i], p_origins[i], p_sequences[i],
                    to_timestamp(p_at[i] / 1e9))::farwrite.meta];
                WHILE v_last < v_plain_to AND p_functions[v_last + 1] = p_functions[i]
                    AND outcomes[v_last + 1] IS NULL AND p_expires[v_last + 1] IS NULL
                LOOP
                    v_last := v_last + 1;
                    v_bodies := array_append(v_bodies, p_bodies[v_last]::jsonb);
                    v_metas := array_append(v_metas, ROW(p_ids[v_last], p_names[v_last], p_versions[v_last], p_keys[v_last],
                        p_origins[v_last], p_sequences[v_last], to_timestamp(p_at[v_last] / 1e9))::farwrite.meta);
                END LOOP;
                v_outputs := farwrite.call_set(p_functions[i], v_bodies, v_metas);
                FOR j IN i .. v_last LOOP
                    outcomes[j] := 'applied';
                    answers[j] := v_outputs[j - i + 1];
                END LOOP;
                i := v_last;
            ELSE
                IF v_context THEN
                    PERFORM set_config('farwrite.context', coalesce(p_contexts[i], ''), true);
                END IF;
                answers[i] := farwrite.call(p_functions[i], p_bodies[i]::jsonb,
                    p_ids[i], p_names[i], p_versions[i], p_keys[i], p_origins[i], p_sequences[i], p_at[i]);
                outcomes[i] := 'applied';
            END IF;
            IF v_count > 1 THEN
                SET CONSTRAINTS ALL IMMEDIATE;
            END IF;
            RESET ROLE;
            RESET ALL;
            CONTINUE;
        END IF;

        v_last := least(i + v_group, v_count);
        v_before := outcomes[i + 1 : v_last];
        v_budget := v_budget - 1;
        BEGIN
            FOR j IN i + 1 .. v_last LOOP
                CONTINUE WHEN outcomes[j] IS NOT NULL;
                v_running := j;
                IF v_expires AND p_expires[j] <= extract(epoch FROM clock_timestamp()) * 1e9 THEN
                    outcomes[j] := 'expired';
                    CONTINUE;
                END IF;
                IF v_context THEN
                    PERFORM set_config('farwrite.context', coalesce(p_contexts[j], ''), true);
                END IF;
                answers[j] := farwrite.call(p_functions[j], p_bodies[j]::jsonb,
                    p_ids[j], p_names[j], p_versions[j], p_keys[j], p_origins[j], p_sequences[j], p_at[j]);
                outcomes[j] := 'applied';
                SET CONSTRAINTS ALL IMMEDIATE;
                RESET ROLE;
                RESET ALL;
            END LOOP;
            i := v_last;
            v_group := least(v_group * 2, c_group_max);
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS v_state = RETURNED_SQLSTATE, v_message = MESSAGE_TEXT,
                v_constraint = CONSTRAINT_NAME, v_schema = SCHEMA_NAME, v_code = PG_DATATYPE_NAME;
            v_deferrable := coalesce(v_deferrable, EXISTS (SELECT FROM pg_catalog.pg_constraint c WHERE c.condeferrable));
            -- What violates Farwrite's own tables is never a command's fault. And a constraint that
            -- may be deferred was perhaps checked too early, for its companions' sake: only the
            -- lone run is definitive. A trigger refuses with whatever code it likes.
            IF v_schema = 'farwrite' OR NOT farwrite.is_own_fault(v_state)
                OR (v_deferrable
                    AND EXISTS (SELECT FROM pg_catalog.pg_constraint c
                                WHERE c.condeferrable AND (c.contype = 't' OR c.conname = v_constraint)))
            THEN
                RAISE;
            END IF;
            -- What came before it in its group is undone with it, and done again plain: it
            -- succeeded a moment ago. What comes after it was not reached.
            FOR j IN i + 1 .. v_last LOOP
                outcomes[j] := v_before[j - i];
            END LOOP;
            outcomes[v_running] := 'rejected';
            answers[v_running] := json_strip_nulls(json_build_object(
                'code', CASE WHEN v_state = 'P0001' THEN coalesce(nullif(v_code, ''), v_state) ELSE v_state END,
                'message', v_message, 'constraint', nullif(v_constraint, '')));
            v_plain_to := v_running;
            v_group := greatest(v_group / 2, 2);
        END;
    END LOOP;
    PERFORM pg_advisory_unlock_all();
    done := i;
END $$;

-- A batch of function commands in one statement; FW004 where something of the lane is parked or
-- paused, since then it must be sorted first. See farwrite.run for the arrays and p_group; the
-- lane's position stops at the last command that was settled. repeated says which the ledger knew.
CREATE FUNCTION farwrite.apply(
    p_stream integer, p_lane integer, p_epoch uuid, p_from bigint, p_to bigint, p_to_at bigint,
    p_at bigint[], p_group integer,
    p_ids uuid[], p_fingerprints uuid[], p_sequences bigint[], p_functions integer[], p_set_forms boolean[],
    p_names text[], p_versions integer[], p_keys text[], p_origins text[], p_bodies text[],
    p_expires bigint[], p_contexts text[],
    OUT done integer, OUT outcomes text[], OUT answers text[], OUT repeated boolean[])
LANGUAGE plpgsql AS $$
DECLARE
    v_count integer := cardinality(p_ids);
    v_lane  record;
    v_new   text[];
BEGIN
    v_lane := farwrite.fence(p_stream, p_lane, p_epoch, p_from, p_to, p_to_at,
        p_sequences[v_count], p_at[v_count], p_ids[v_count]::text);
    IF v_lane.parked > 0 OR v_lane.paused THEN
        RAISE EXCEPTION 'commands of lane % are parked or paused', p_lane USING ERRCODE = 'FW004', SCHEMA = 'farwrite';
    END IF;

    SELECT k.outcomes, k.answers INTO outcomes, answers FROM farwrite.known(p_ids, p_fingerprints) k;
    SELECT array_agg(o IS NOT NULL ORDER BY n) INTO repeated FROM unnest(outcomes) WITH ORDINALITY AS u (o, n);

    SELECT r.outcomes, r.answers, r.done INTO outcomes, answers, done
    FROM farwrite.run(p_group, p_functions, p_set_forms, p_ids, p_names, p_versions, p_keys, p_origins, p_sequences,
        p_at, p_bodies, p_expires, p_contexts, outcomes, answers) r;
    IF done < v_count THEN
        UPDATE farwrite.lanes
        SET sequence = p_sequences[done], sequence_at = p_at[done],
            anchor_sequence = p_sequences[done], anchor_at = p_at[done], anchor_id = p_ids[done]::text
        WHERE stream_id = p_stream AND lane = p_lane;
    END IF;

    -- What was not reached is null already, and what is repeated must not be recorded again.
    v_new := outcomes;
    FOR j IN 1 .. v_count LOOP
        IF repeated[j] THEN
            v_new[j] := NULL;
        END IF;
    END LOOP;
    PERFORM farwrite.record(p_stream, p_ids, p_fingerprints, p_sequences, p_at, '{}', v_new, answers);
END $$;

-- Opens a staged batch: the fence, and everything that is known about its commands.
--   outcomes, answers  what the ledger knows, by place in p_ids (from 1)
--   parked_*           those of the ids that are parked, with their sequences, and how many stand
--                      before them in their lines (counted up to 4096)
--   held_*             those of the lines that something waits in, and how much
--   paused_*           all names and keys that are paused
CREATE FUNCTION farwrite.open_batch(
    p_stream integer, p_lane integer, p_epoch uuid, p_from bigint, p_to bigint, p_to_at bigint,
    p_anchor_sequence bigint, p_anchor_at bigint, p_anchor_id text,
    p_ids uuid[], p_fingerprints uuid[], p_lines text[],
    OUT xid text, OUT now_ns bigint, OUT outcomes text[], OUT answers text[],
    OUT parked bigint, OUT parked_ids uuid[], OUT parked_fingerprints uuid[], OUT parked_sequences bigint[],
    OUT parked_ahead bigint[], OUT held_lines text[], OUT held_commands bigint[], OUT paused_names text[], OUT paused_keys text[])
LANGUAGE plpgsql SET search_path = pg_catalog SET enable_seqscan = off AS $$
DECLARE
    v_paused boolean;
BEGIN
    SELECT f.parked, f.paused INTO parked, v_paused
    FROM farwrite.fence(p_stream, p_lane, p_epoch, p_from, p_to, p_to_at, p_anchor_sequence, p_anchor_at, p_anchor_id) f;
    xid := pg_current_xact_id()::text;
    SELECT k.outcomes, k.answers INTO outcomes, answers FROM farwrite.known(p_ids, p_fingerprints) k;
    -- Of whichever lane: an id may wait there under another key.
    SELECT array_agg(p.command_id), array_agg(p.fingerprint), array_agg(p.sequence),
           array_agg((SELECT count(*) FROM (
               SELECT FROM farwrite.parked q
               WHERE q.stream_id = p.stream_id AND q.line = p.line AND q.place < p.place LIMIT 4096) a))
    INTO parked_ids, parked_fingerprints, parked_sequences, parked_ahead
    FROM farwrite.parked p WHERE p.command_id = ANY (p_ids) AND p.stream_id = p_stream;
    IF parked > 0 THEN
        SELECT array_agg(l.line), array_agg(l.commands) INTO held_lines, held_commands
        FROM farwrite.parked_lines l WHERE l.stream_id = p_stream AND l.line = ANY (p_lines);
    END IF;
    IF v_paused THEN
        SELECT array_agg(p.name) FILTER (WHERE p.name IS NOT NULL), array_agg(p.order_key) FILTER (WHERE p.order_key IS NOT NULL)
        INTO paused_names, paused_keys FROM farwrite.pauses p;
    END IF;
    now_ns := (extract(epoch FROM clock_timestamp()) * 1e9)::bigint;
END $$;

-- Closes a staged batch: the outcomes go into the ledger. Raises FW002 when this is no longer the
-- transaction that farwrite.open_batch began: a handler ended it, and what it committed is not
-- in the ledger. What the last handler left in the session is put back; so this function has no
-- setting of its own, which would be restored behind it.
CREATE FUNCTION farwrite.close_batch(
    p_xid text, p_stream integer, p_ids uuid[], p_fingerprints uuid[], p_sequences bigint[], p_at bigint[],
    p_attempts integer[], p_outcomes text[], p_answers text[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    RESET ROLE;
    RESET ALL;
    PERFORM pg_catalog.pg_advisory_unlock_all();
    IF pg_catalog.pg_current_xact_id_if_assigned()::text IS DISTINCT FROM p_xid THEN
        RAISE EXCEPTION 'the batch''s transaction % was ended by one of its commands', p_xid
            USING ERRCODE = 'FW002', SCHEMA = 'farwrite', HINT = 'A handler must not commit or roll back: the worker does.';
    END IF;
    PERFORM farwrite.record(p_stream, p_ids, p_fingerprints, p_sequences, p_at, p_attempts, p_outcomes, p_answers);
END $$;

-- Parks commands, in the given order: each at the end of its line, or, with a time in p_scheduled
-- (nanoseconds since 1970), outside of it until then. p_waits (seconds) says when a line that is
-- new is tried; null for when somebody resumes it. The caller holds the lane's row.
CREATE FUNCTION farwrite.park(
    p_stream integer, p_lane integer, p_sequences bigint[], p_ids uuid[], p_fingerprints uuid[], p_names text[],
    p_versions integer[], p_keys text[], p_lines text[], p_lane_hashes bigint[], p_subjects text[], p_headers text[],
    p_bodies bytea[], p_at bigint[], p_reasons text[], p_errors text[], p_attempts integer[],
    p_scheduled bigint[], p_waits double precision[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    WITH new AS (
        SELECT u.*, row_number() OVER (PARTITION BY u.line, u.scheduled IS NULL ORDER BY u.n) AS step,
               count(*) OVER (PARTITION BY u.line, u.scheduled IS NULL) AS steps
        FROM unnest(p_sequences, p_ids, p_fingerprints, p_names, p_versions, p_keys, p_lines, p_lane_hashes, p_subjects,
                    p_headers, p_bodies, p_at, p_reasons, p_errors, p_attempts, p_scheduled, p_waits) WITH ORDINALITY
            AS u (sequence, id, fingerprint, name, version, order_key, line, lane_hash, subject,
                  headers, body, at, reason, error, attempts, scheduled, wait, n)
    ), lines AS (
        INSERT INTO farwrite.parked_lines AS l (stream_id, line, lane_hash, commands, last_place, due_at)
        SELECT p_stream, line, lane_hash, steps, steps, coalesce(clock_timestamp() + make_interval(secs => wait), 'infinity')
        FROM new WHERE scheduled IS NULL AND step = 1
        ON CONFLICT (stream_id, line) DO UPDATE
        SET commands = l.commands + excluded.commands, last_place = l.last_place + excluded.commands
        RETURNING l.line, l.last_place
    )
    INSERT INTO farwrite.parked (stream_id, sequence, command_id, fingerprint, name, version, order_key, line, lane_hash,
        place, due_at, reason, error, attempts, subject, headers, body, published_at)
    SELECT p_stream, n.sequence, n.id, n.fingerprint, n.name, n.version, n.order_key, n.line, n.lane_hash,
           CASE WHEN n.scheduled IS NULL THEN l.last_place - n.steps + n.step END,
           to_timestamp(n.scheduled / 1e9),
           n.reason, n.error::json, n.attempts, n.subject, n.headers::json, n.body, n.at
    FROM new n LEFT JOIN lines l USING (line);
    UPDATE farwrite.lanes SET parked = parked + cardinality(p_sequences) WHERE stream_id = p_stream AND lane = p_lane;
END $$;

-- Takes commands out of their lines (or out of the schedule): they are settled. What waits behind
-- them is due at once, behind the other lines that are. The caller holds the lane's row.
CREATE FUNCTION farwrite.unpark(p_stream integer, p_lane integer, p_sequences bigint[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog SET enable_seqscan = off AS $$
DECLARE
    v_gone bigint;
BEGIN
    WITH gone AS (
        DELETE FROM farwrite.parked WHERE stream_id = p_stream AND sequence = ANY (p_sequences)
        RETURNING line, place
    ), counts AS (
        SELECT line, count(*) AS n FROM gone WHERE place IS NOT NULL GROUP BY line
    ), shorter AS (
        UPDATE farwrite.parked_lines l SET commands = l.commands - c.n, due_at = clock_timestamp()
        FROM counts c WHERE l.stream_id = p_stream AND l.line = c.line
    )
    SELECT count(*) INTO v_gone FROM gone;
    DELETE FROM farwrite.parked_lines WHERE stream_id = p_stream AND commands = 0;
    UPDATE farwrite.lanes SET parked = parked - v_gone WHERE stream_id = p_stream AND lane = p_lane;
END $$;

-- Keeps commands that were tried, or could not be yet, where they are: the first of their lines.
-- p_waits (seconds) says when the line is tried again; null for when somebody resumes it. The
-- caller holds the lane's row.
CREATE FUNCTION farwrite.keep_parked(
    p_stream integer, p_sequences bigint[], p_reasons text[], p_errors text[], p_attempts integer[],
    p_waits double precision[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog SET enable_seqscan = off AS $$
BEGIN
    WITH kept AS (
        UPDATE farwrite.parked p
        SET reason = u.reason, error = coalesce(u.error::json, p.error), attempts = u.attempts,
            lacks_since = CASE WHEN p.reason IN ('unknown_command', 'not_ready', 'behind') THEN p.lacks_since ELSE clock_timestamp() END
        FROM unnest(p_sequences, p_reasons, p_errors, p_attempts, p_waits) AS u (sequence, reason, error, attempts, wait)
        WHERE p.stream_id = p_stream AND p.sequence = u.sequence
        RETURNING p.line, u.wait
    )
    UPDATE farwrite.parked_lines l
    SET due_at = coalesce(clock_timestamp() + make_interval(secs => k.wait), 'infinity')
    FROM kept k WHERE l.stream_id = p_stream AND l.line = k.line;
END $$;

-- Brings scheduled commands of a lane whose time has come to the ends of their lines. The caller
-- holds the lane's row.
CREATE FUNCTION farwrite.bring_due(p_stream integer, p_lane integer, p_lanes integer, p_limit integer) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog SET enable_seqscan = off AS $$
DECLARE
    v_brought integer;
BEGIN
    WITH due AS (
        SELECT p.sequence, p.line, p.lane_hash,
               row_number() OVER (PARTITION BY p.line ORDER BY p.due_at, p.sequence) AS step,
               count(*) OVER (PARTITION BY p.line) AS steps
        FROM (SELECT sequence, line, lane_hash, due_at FROM farwrite.parked
              WHERE stream_id = p_stream AND place IS NULL AND due_at <= clock_timestamp() AND lane_hash % p_lanes = p_lane
              ORDER BY due_at, sequence LIMIT p_limit) p
    ), lines AS (
        INSERT INTO farwrite.parked_lines AS l (stream_id, line, lane_hash, commands, last_place, due_at)
        SELECT p_stream, line, lane_hash, steps, steps, clock_timestamp() FROM due WHERE step = 1
        ON CONFLICT (stream_id, line) DO UPDATE
        SET commands = l.commands + excluded.commands, last_place = l.last_place + excluded.commands
        RETURNING l.line, l.last_place
    ), brought AS (
        UPDATE farwrite.parked p SET place = l.last_place - d.steps + d.step, due_at = NULL, reason = 'due'
        FROM due d JOIN lines l USING (line)
        WHERE p.stream_id = p_stream AND p.sequence = d.sequence
        RETURNING 1
    )
    SELECT count(*) INTO v_brought FROM brought;
    RETURN v_brought;
END $$;

-- The commands of a lane that are to be tried now: the first ones of the lines that are due, the
-- longest due line first, at most p_limit, and about p_bytes, shared between the lines. Brings
-- scheduled ones into their lines before it looks. lacks_seconds is how long each has waited for
-- something that is not there, or behind others: not for its time, for an operator, or by chance.
CREATE FUNCTION farwrite.due_commands(
    p_stream integer, p_lane integer, p_lanes integer, p_epoch uuid, p_limit integer, p_bytes bigint)
RETURNS TABLE (sequence bigint, reason text, attempts integer, lacks_seconds double precision, subject text, headers json, body bytea, published_at bigint)
LANGUAGE plpgsql SET search_path = pg_catalog SET enable_seqscan = off AS $$
DECLARE
    v_lines text[];
BEGIN
    PERFORM FROM farwrite.lanes l
        WHERE l.stream_id = p_stream AND l.lane = p_lane AND l.epoch = p_epoch FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'lane % of stream % is not under epoch %', p_lane, p_stream, p_epoch
            USING ERRCODE = 'FW001', SCHEMA = 'farwrite', HINT = 'Another worker has taken over this database.';
    END IF;
    PERFORM farwrite.bring_due(p_stream, p_lane, p_lanes, p_limit);
    SELECT array_agg(d.line ORDER BY d.due_at) INTO v_lines
    FROM (SELECT l.line, l.due_at FROM farwrite.parked_lines l
          WHERE l.stream_id = p_stream AND l.due_at <= clock_timestamp() AND l.lane_hash % p_lanes = p_lane
          ORDER BY l.due_at LIMIT p_limit) d;
    RETURN QUERY
        SELECT c.sequence, c.reason, c.attempts,
               CASE WHEN c.reason IN ('unknown_command', 'not_ready', 'behind')
                    THEN extract(epoch FROM clock_timestamp() - c.lacks_since) ELSE 0 END::double precision,
               c.subject, c.headers, c.body, c.published_at
        FROM (SELECT p.*, u.n, sum(octet_length(p.body)) OVER (ORDER BY p.step, u.n) - octet_length(p.body) AS before
              FROM unnest(v_lines) WITH ORDINALITY AS u (line, n)
              CROSS JOIN LATERAL (
                  SELECT q.*, row_number() OVER (ORDER BY q.place) AS step FROM farwrite.parked q
                  WHERE q.stream_id = p_stream AND q.line = u.line AND q.place IS NOT NULL
                  ORDER BY q.place LIMIT greatest(1, p_limit / cardinality(v_lines))) p) c
        WHERE c.before < p_bytes
        ORDER BY c.n, c.place;
END $$;

-- What a lane must know from time to time: whether something of it is parked or paused, in how many
-- seconds the next is due (null where nothing is), and how often the registry has changed.
CREATE FUNCTION farwrite.next_due(p_stream integer, p_lane integer, p_lanes integer, OUT parked bigint, OUT paused boolean, OUT seconds double precision, OUT registry bigint)
LANGUAGE sql STABLE SET search_path = pg_catalog SET enable_seqscan = off AS $$
    SELECT l.parked, l.paused, CASE WHEN l.parked > 0 THEN extract(epoch FROM least(
        (SELECT p.due_at FROM farwrite.parked_lines p
         WHERE p.stream_id = p_stream AND p.lane_hash % p_lanes = p_lane AND p.due_at < 'infinity' ORDER BY p.due_at LIMIT 1),
        (SELECT p.due_at FROM farwrite.parked p
         WHERE p.stream_id = p_stream AND p.lane_hash % p_lanes = p_lane AND p.place IS NULL ORDER BY p.due_at LIMIT 1))
        - clock_timestamp())::double precision END,
        (SELECT changes FROM farwrite.registry)
    FROM farwrite.lanes l WHERE l.stream_id = p_stream AND l.lane = p_lane
$$;
