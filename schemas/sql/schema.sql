CREATE SCHEMA farwrite;

CREATE TYPE farwrite.meta AS (
	id uuid,
	name text,
	version integer,
	key text,
	origin text,
	sequence bigint,
	published_at timestamp with time zone
);

CREATE TYPE farwrite.outcome AS ENUM (
    'applied',
    'rejected',
    'expired',
    'dead_lettered'
);

CREATE TYPE farwrite.row_plan AS (
	name text,
	change text,
	look text,
	key text,
	keyed boolean
);

CREATE FUNCTION farwrite.adopt_database(p_new boolean, p_reason text) RETURNS text
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
DECLARE
    v_identity text;
BEGIN
    UPDATE farwrite.owner
    SET identity = farwrite.home() || '/' || gen_random_uuid(), flushed_lsn = NULL
    WHERE p_new OR farwrite.identity() IS NULL;
    SELECT coalesce(max(identity), farwrite.home()) INTO v_identity FROM farwrite.owner;
    INSERT INTO farwrite.operations (act, subject, reason) VALUES ('adopt_database', v_identity, p_reason);
    RETURN v_identity;
END $$;

CREATE FUNCTION farwrite.adopt_stream(p_stream integer, p_from bigint, p_at bigint, p_id uuid, p_created text, p_identity uuid, p_reason text) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
DECLARE
    v_step   constant bigint := 1::bigint << 56;
    v_offset bigint;
    v_count  bigint;
    v_more   bigint;
BEGIN
    PERFORM farwrite.hold_lanes();
    SELECT (coalesce(max(sequence), 0) / v_step + 1) * v_step INTO v_offset
    FROM (SELECT sequence FROM farwrite.parked WHERE stream_id = p_stream
          UNION ALL SELECT sequence FROM farwrite.dead_letters WHERE stream_id = p_stream) s;
    UPDATE farwrite.parked SET sequence = sequence + v_offset
    WHERE stream_id = p_stream AND sequence >= p_from AND sequence < v_step;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    UPDATE farwrite.dead_letters SET sequence = sequence + v_offset
    WHERE stream_id = p_stream AND sequence >= p_from AND sequence < v_step;
    GET DIAGNOSTICS v_more = ROW_COUNT;
    UPDATE farwrite.lanes
    SET epoch = gen_random_uuid(), sequence = p_from - 1, sequence_at = p_at, sequence_id = p_id, suspects = '{}'
    WHERE stream_id = p_stream;
    UPDATE farwrite.streams
    SET created = p_created, identity = p_identity, low_water = p_from - 1, low_water_at = NULL, trim_floor = NULL,
        high_water = p_from - 1, high_water_at = p_at, high_water_id = p_id, refused = NULL, refused_at = NULL
    WHERE stream_id = p_stream;
    INSERT INTO farwrite.operations (act, stream_id, sequence, subject, reason)
    VALUES ('adopt_stream', p_stream, p_from, p_identity::text, p_reason);
    RETURN v_count + v_more;
END $$;

CREATE FUNCTION farwrite.apply_guarded(p_stream integer, p_lane integer, p_epoch uuid, p_from bigint, p_to bigint, p_to_at bigint, p_to_id uuid, p_at bigint[], p_ids uuid[], p_fingerprints uuid[], p_sequences bigint[], p_functions integer[], p_names text[], p_versions integer[], p_keys text[], p_origins text[], p_bodies bytea, p_starts integer[], p_expires bigint[], p_contexts text[], p_group integer, p_unconfirmed boolean[], OUT done integer, OUT outcomes text[], OUT answers text[], OUT repeated boolean[]) RETURNS record
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_count integer := cardinality(p_ids);
    v_known record;
    v_ran   record;
    v_new   text[];
BEGIN
    -- The fence comes first, as in farwrite.apply_plain.
    PERFORM FROM farwrite.lanes l
    WHERE l.stream_id = p_stream AND l.lane = p_lane AND l.epoch = p_epoch AND l.sequence = p_from
      AND l.parked = 0 AND NOT l.paused
    FOR NO KEY UPDATE;
    IF NOT FOUND OR farwrite.is_any_parked(p_ids) THEN
        RETURN;
    END IF;

    v_known := farwrite.known(p_ids, p_fingerprints);
    v_ran := farwrite.call_guarded(p_group, p_functions, p_ids, p_names, p_versions, p_keys, p_origins, p_sequences,
        p_at, p_bodies, p_starts, p_expires, p_contexts, v_known.outcomes, v_known.answers);
    done := v_ran.done;
    outcomes := v_ran.outcomes;
    answers := v_ran.answers;
    UPDATE farwrite.lanes
    SET sequence = CASE WHEN done < v_count THEN p_sequences[done] ELSE p_to END,
        sequence_at = CASE WHEN done < v_count THEN p_at[done] ELSE p_to_at END,
        sequence_id = CASE WHEN done < v_count THEN p_ids[done] ELSE p_to_id END
    WHERE stream_id = p_stream AND lane = p_lane;

    -- What was not reached is null already, and what is repeated must not be recorded again.
    v_new := outcomes;
    repeated := array_fill(false, ARRAY[v_count]);
    IF array_remove(v_known.outcomes, NULL) <> '{}' THEN
        FOR j IN 1 .. v_count LOOP
            IF v_known.outcomes[j] IS NOT NULL THEN
                repeated[j] := true;
                v_new[j] := NULL;
            END IF;
        END LOOP;
    END IF;
    PERFORM farwrite.record(p_stream, p_ids, p_fingerprints, p_sequences, p_at, '{}', v_new, answers, p_unconfirmed);
    IF pg_column_size(answers) > 4194304 THEN
        answers := farwrite.shortened(answers, outcomes);
    END IF;
END $$;

CREATE FUNCTION farwrite.apply_plain(p_stream integer, p_lane integer, p_epoch uuid, p_from bigint, p_to bigint, p_to_at bigint, p_to_id uuid, p_at bigint[], p_ids uuid[], p_fingerprints uuid[], p_sequences bigint[], p_functions integer[], p_names text[], p_versions integer[], p_keys text[], p_origins text[], p_bodies bytea, p_starts integer[], p_lowest uuid, p_highest uuid, OUT answers text[]) RETURNS text[]
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_count integer := cardinality(p_ids);
BEGIN
    -- The fence comes first, and its lock: what is looked up after it stays so, and a session that holds the lanes
    -- finds nothing of the ledger locked.
    PERFORM FROM farwrite.lanes l
    WHERE l.stream_id = p_stream AND l.lane = p_lane AND l.epoch = p_epoch AND l.sequence = p_from
      AND l.parked = 0 AND NOT l.paused
    FOR NO KEY UPDATE;
    IF NOT FOUND OR farwrite.is_any_known(p_ids, p_lowest, p_highest) THEN
        RETURN;
    END IF;

    -- Each takes what comes from the one before it.
    WITH moved AS (
        UPDATE farwrite.lanes l SET sequence = p_to, sequence_at = p_to_at, sequence_id = p_to_id
        WHERE l.stream_id = p_stream AND l.lane = p_lane
        RETURNING true
    ), ran AS (
        SELECT (farwrite.call_all(p_functions, p_ids, p_names, p_versions, p_keys, p_origins, p_sequences, p_at,
            p_bodies, p_starts, '{}', '{}', NULL, pg_catalog.array_fill(NULL::text, ARRAY[v_count]))).answers
        FROM moved
    ), recorded AS (
        INSERT INTO farwrite.ledger (command_id, outcome, answer, fingerprint, stream_id, sequence, attempts, published_at)
        SELECT p_ids[i.place], 'applied', i.answer::json, p_fingerprints[i.place], p_stream, p_sequences[i.place], 1,
               to_timestamp(p_at[i.place]::float8 / 1e9::float8)
        FROM ran, unnest(ran.answers) WITH ORDINALITY AS i (answer, place)
    )
    SELECT CASE WHEN pg_catalog.pg_column_size(ran.answers) > 4194304 THEN farwrite.shortened(ran.answers, NULL) ELSE ran.answers END
    INTO apply_plain.answers FROM ran;
END $$;

CREATE FUNCTION farwrite.begin_epoch(p_epoch uuid, p_parent uuid, p_flushed pg_lsn, p_timeline integer) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
DECLARE
    -- A worker that takes over every second without end needs three hours for so many. Reading past
    -- them to find the oldest takes a millisecond.
    c_rows     CONSTANT integer := 10000;
    v_identity text := (SELECT identity FROM farwrite.owner);
    v_before   farwrite.history;
    v_survives pg_lsn;
    v_left     integer;
BEGIN
    SELECT * INTO v_before FROM farwrite.history WHERE epoch = p_parent AND identity = v_identity;
    IF FOUND AND v_before.timeline <> p_timeline THEN
        v_left := v_before.timeline;
        v_survives := coalesce(farwrite.timeline_end(v_left, p_timeline), greatest(p_flushed, v_before.begin_lsn));
    END IF;
    INSERT INTO farwrite.history (epoch, parent, timeline, begin_lsn, parent_lsn, left_timeline, taken_at, identity)
    VALUES (p_epoch, v_before.epoch, p_timeline, pg_current_wal_flush_lsn(), v_survives, v_left, now(), v_identity);
    DELETE FROM farwrite.history
    WHERE number < (SELECT h.number FROM farwrite.history h ORDER BY h.number DESC OFFSET c_rows - 1 LIMIT 1);
END $$;

CREATE FUNCTION farwrite.body(p_bodies bytea, p_starts integer[], p_place integer) RETURNS jsonb
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN (convert_from("substring"(p_bodies, (p_starts)[p_place], ((p_starts)[(p_place + 1)] - (p_starts)[p_place])), 'UTF8'::name))::jsonb;

CREATE FUNCTION farwrite.branches(p_epochs uuid[]) RETURNS TABLE(epoch uuid, timeline integer, ends pg_lsn, proven pg_lsn, forgotten pg_lsn, elsewhere boolean, latest integer)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog'
    AS $$
#variable_conflict use_column
DECLARE
    v_identity text := farwrite.identity();
BEGIN
    IF v_identity IS NULL AND EXISTS (SELECT FROM farwrite.owner) THEN
        RAISE EXCEPTION 'another database wrote these rows: this one is a dump, a copy, a logical subscriber, or of an upgraded cluster'
            USING ERRCODE = 'FW004', SCHEMA = 'farwrite';
    END IF;
    RETURN QUERY
    SELECT asked.epoch, h.timeline,
           (SELECT min(f.parent_lsn) FROM farwrite.history f
            WHERE f.left_timeline = h.timeline AND f.identity = v_identity),
           greatest(h.begin_lsn, CASE WHEN last.timeline = h.timeline THEN last.proven END),
           -- The first takeover has no parent. A bookmark of the last one that was deleted may lie a
           -- little past where the next one began.
           CASE WHEN h.epoch IS NULL THEN
               (SELECT max(k.begin_lsn)
                FROM (SELECT o.parent, o.begin_lsn FROM farwrite.history o ORDER BY o.number LIMIT 2) k
                HAVING bool_and(k.parent IS NOT NULL))
           END,
           EXISTS (SELECT FROM farwrite.history e WHERE e.epoch = asked.epoch AND e.identity <> v_identity),
           last.timeline
    FROM unnest(p_epochs) AS asked (epoch)
    LEFT JOIN farwrite.history h ON h.epoch = asked.epoch AND h.identity = v_identity
    LEFT JOIN (SELECT l.timeline, greatest(l.begin_lsn, o.flushed_lsn) AS proven
               FROM farwrite.history l LEFT JOIN farwrite.owner o ON o.epoch = l.epoch
               ORDER BY l.number DESC LIMIT 1) last ON true;
END $$;

CREATE FUNCTION farwrite.bring_due(p_stream integer, p_lane integer, p_lanes integer, p_limit integer) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    SET enable_seqscan TO 'off'
    AS $$
DECLARE
    v_brought integer;
BEGIN
    WITH due AS (
        SELECT p.sequence, p.key_queue, p.lane_hash,
               row_number() OVER (PARTITION BY p.key_queue ORDER BY p.due_at, p.sequence) AS step,
               count(*) OVER (PARTITION BY p.key_queue) AS steps
        FROM (SELECT sequence, key_queue, lane_hash, due_at FROM farwrite.parked
              WHERE stream_id = p_stream AND place IS NULL AND due_at <= clock_timestamp() AND lane_hash % p_lanes = p_lane
              ORDER BY due_at, sequence LIMIT p_limit) p
    ), queues AS (
        INSERT INTO farwrite.key_queues AS l (stream_id, key_queue, lane_hash, commands, last_place, due_at)
        SELECT p_stream, key_queue, lane_hash, steps, steps, clock_timestamp() FROM due WHERE step = 1
        ON CONFLICT (stream_id, key_queue) DO UPDATE
        SET commands = l.commands + excluded.commands, last_place = l.last_place + excluded.commands
        RETURNING l.key_queue, l.last_place
    ), brought AS (
        UPDATE farwrite.parked p SET place = l.last_place - d.steps + d.step, due_at = NULL, reason = 'due'
        FROM due d JOIN queues l USING (key_queue)
        WHERE p.stream_id = p_stream AND p.sequence = d.sequence
        RETURNING 1
    )
    SELECT count(*) INTO v_brought FROM brought;
    RETURN v_brought;
END $$;

CREATE FUNCTION farwrite.call(j integer, p_functions integer[], p_ids uuid[], p_names text[], p_versions integer[], p_keys text[], p_origins text[], p_sequences bigint[], p_at bigint[], p_bodies bytea, p_starts integer[], INOUT answers text[]) RETURNS text[]
    LANGUAGE plpgsql
    AS $$
BEGIN
    CASE p_functions[j]
WHEN 0 THEN NULL;
WHEN 1 THEN answers[j] := farwrite.row_insert(farwrite.body(p_bodies, p_starts, j), ROW(p_ids[j], p_names[j], p_versions[j], p_keys[j], p_origins[j], p_sequences[j], to_timestamp(p_at[j] / 1e9))::farwrite.meta)::text;
WHEN 2 THEN answers[j] := farwrite.row_update(farwrite.body(p_bodies, p_starts, j), ROW(p_ids[j], p_names[j], p_versions[j], p_keys[j], p_origins[j], p_sequences[j], to_timestamp(p_at[j] / 1e9))::farwrite.meta)::text;
WHEN 3 THEN answers[j] := farwrite.row_upsert(farwrite.body(p_bodies, p_starts, j), ROW(p_ids[j], p_names[j], p_versions[j], p_keys[j], p_origins[j], p_sequences[j], to_timestamp(p_at[j] / 1e9))::farwrite.meta)::text;
WHEN 4 THEN answers[j] := farwrite.row_delete(farwrite.body(p_bodies, p_starts, j), ROW(p_ids[j], p_names[j], p_versions[j], p_keys[j], p_origins[j], p_sequences[j], to_timestamp(p_at[j] / 1e9))::farwrite.meta)::text;
ELSE
    RAISE EXCEPTION 'no function is registered under number %', p_functions[j] USING ERRCODE = 'FW003', SCHEMA = 'farwrite';
END CASE;
END $$;

CREATE FUNCTION farwrite.call_all(p_functions integer[], p_ids uuid[], p_names text[], p_versions integer[], p_keys text[], p_origins text[], p_sequences bigint[], p_at bigint[], p_bodies bytea, p_starts integer[], p_expires bigint[], p_contexts text[], INOUT outcomes text[], INOUT answers text[]) RETURNS record
    LANGUAGE plpgsql
    AS $$
BEGIN
    FOR j IN 1 .. cardinality(p_functions) LOOP
        CONTINUE WHEN outcomes[j] IS NOT NULL;
        
BEGIN
    IF cardinality(p_expires) > 0 AND p_expires[j] <= extract(epoch FROM clock_timestamp()) * 1e9 THEN
        outcomes[j] := 'expired';
        answers[j] := NULL;
    ELSE
        IF cardinality(p_contexts) > 0 THEN
            PERFORM set_config('farwrite.context', coalesce(p_contexts[j], ''), true);
        END IF;
        CASE p_functions[j]
WHEN 0 THEN NULL;
WHEN 1 THEN answers[j] := farwrite.row_insert(farwrite.body(p_bodies, p_starts, j), ROW(p_ids[j], p_names[j], p_versions[j], p_keys[j], p_origins[j], p_sequences[j], to_timestamp(p_at[j] / 1e9))::farwrite.meta)::text;
WHEN 2 THEN answers[j] := farwrite.row_update(farwrite.body(p_bodies, p_starts, j), ROW(p_ids[j], p_names[j], p_versions[j], p_keys[j], p_origins[j], p_sequences[j], to_timestamp(p_at[j] / 1e9))::farwrite.meta)::text;
WHEN 3 THEN answers[j] := farwrite.row_upsert(farwrite.body(p_bodies, p_starts, j), ROW(p_ids[j], p_names[j], p_versions[j], p_keys[j], p_origins[j], p_sequences[j], to_timestamp(p_at[j] / 1e9))::farwrite.meta)::text;
WHEN 4 THEN answers[j] := farwrite.row_delete(farwrite.body(p_bodies, p_starts, j), ROW(p_ids[j], p_names[j], p_versions[j], p_keys[j], p_origins[j], p_sequences[j], to_timestamp(p_at[j] / 1e9))::farwrite.meta)::text;
ELSE
    RAISE EXCEPTION 'no function is registered under number %', p_functions[j] USING ERRCODE = 'FW003', SCHEMA = 'farwrite';
END CASE;
        -- What a lone command defers is its commit's affair.
        IF cardinality(p_functions) > 1 THEN
            SET CONSTRAINTS ALL IMMEDIATE;
        END IF;
        RESET ROLE;
        RESET ALL;
        outcomes[j] := 'applied';
    END IF;
END ;
    END LOOP;
    PERFORM pg_advisory_unlock_all();
END $$;

CREATE FUNCTION farwrite.call_all_template(p_functions integer[], p_ids uuid[], p_names text[], p_versions integer[], p_keys text[], p_origins text[], p_sequences bigint[], p_at bigint[], p_bodies bytea, p_starts integer[], p_expires bigint[], p_contexts text[], INOUT outcomes text[], INOUT answers text[]) RETURNS record
    LANGUAGE plpgsql
    AS $$
BEGIN
    FOR j IN 1 .. cardinality(p_functions) LOOP
        CONTINUE WHEN outcomes[j] IS NOT NULL;
        /*step*/
    END LOOP;
    PERFORM pg_advisory_unlock_all();
END $$;

CREATE FUNCTION farwrite.call_guarded(p_group integer, p_functions integer[], p_ids uuid[], p_names text[], p_versions integer[], p_keys text[], p_origins text[], p_sequences bigint[], p_at bigint[], p_bodies bytea, p_starts integer[], p_expires bigint[], p_contexts text[], INOUT outcomes text[], INOUT answers text[], OUT done integer) RETURNS record
    LANGUAGE plpgsql
    AS $$
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
                
BEGIN
    IF cardinality(p_expires) > 0 AND p_expires[j] <= extract(epoch FROM clock_timestamp()) * 1e9 THEN
        outcomes[j] := 'expired';
        answers[j] := NULL;
    ELSE
        IF cardinality(p_contexts) > 0 THEN
            PERFORM set_config('farwrite.context', coalesce(p_contexts[j], ''), true);
        END IF;
        CASE p_functions[j]
WHEN 0 THEN NULL;
WHEN 1 THEN answers[j] := farwrite.row_insert(farwrite.body(p_bodies, p_starts, j), ROW(p_ids[j], p_names[j], p_versions[j], p_keys[j], p_origins[j], p_sequences[j], to_timestamp(p_at[j] / 1e9))::farwrite.meta)::text;
WHEN 2 THEN answers[j] := farwrite.row_update(farwrite.body(p_bodies, p_starts, j), ROW(p_ids[j], p_names[j], p_versions[j], p_keys[j], p_origins[j], p_sequences[j], to_timestamp(p_at[j] / 1e9))::farwrite.meta)::text;
WHEN 3 THEN answers[j] := farwrite.row_upsert(farwrite.body(p_bodies, p_starts, j), ROW(p_ids[j], p_names[j], p_versions[j], p_keys[j], p_origins[j], p_sequences[j], to_timestamp(p_at[j] / 1e9))::farwrite.meta)::text;
WHEN 4 THEN answers[j] := farwrite.row_delete(farwrite.body(p_bodies, p_starts, j), ROW(p_ids[j], p_names[j], p_versions[j], p_keys[j], p_origins[j], p_sequences[j], to_timestamp(p_at[j] / 1e9))::farwrite.meta)::text;
ELSE
    RAISE EXCEPTION 'no function is registered under number %', p_functions[j] USING ERRCODE = 'FW003', SCHEMA = 'farwrite';
END CASE;
        -- What a lone command defers is its commit's affair.
        IF cardinality(p_functions) > 1 THEN
            SET CONSTRAINTS ALL IMMEDIATE;
        END IF;
        RESET ROLE;
        RESET ALL;
        outcomes[j] := 'applied';
    END IF;
END ;
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
            
BEGIN
    IF cardinality(p_expires) > 0 AND p_expires[j] <= extract(epoch FROM clock_timestamp()) * 1e9 THEN
        outcomes[j] := 'expired';
        answers[j] := NULL;
    ELSE
        IF cardinality(p_contexts) > 0 THEN
            PERFORM set_config('farwrite.context', coalesce(p_contexts[j], ''), true);
        END IF;
        CASE p_functions[j]
WHEN 0 THEN NULL;
WHEN 1 THEN answers[j] := farwrite.row_insert(farwrite.body(p_bodies, p_starts, j), ROW(p_ids[j], p_names[j], p_versions[j], p_keys[j], p_origins[j], p_sequences[j], to_timestamp(p_at[j] / 1e9))::farwrite.meta)::text;
WHEN 2 THEN answers[j] := farwrite.row_update(farwrite.body(p_bodies, p_starts, j), ROW(p_ids[j], p_names[j], p_versions[j], p_keys[j], p_origins[j], p_sequences[j], to_timestamp(p_at[j] / 1e9))::farwrite.meta)::text;
WHEN 3 THEN answers[j] := farwrite.row_upsert(farwrite.body(p_bodies, p_starts, j), ROW(p_ids[j], p_names[j], p_versions[j], p_keys[j], p_origins[j], p_sequences[j], to_timestamp(p_at[j] / 1e9))::farwrite.meta)::text;
WHEN 4 THEN answers[j] := farwrite.row_delete(farwrite.body(p_bodies, p_starts, j), ROW(p_ids[j], p_names[j], p_versions[j], p_keys[j], p_origins[j], p_sequences[j], to_timestamp(p_at[j] / 1e9))::farwrite.meta)::text;
ELSE
    RAISE EXCEPTION 'no function is registered under number %', p_functions[j] USING ERRCODE = 'FW003', SCHEMA = 'farwrite';
END CASE;
        -- What a lone command defers is its commit's affair.
        IF cardinality(p_functions) > 1 THEN
            SET CONSTRAINTS ALL IMMEDIATE;
        END IF;
        RESET ROLE;
        RESET ALL;
        outcomes[j] := 'applied';
    END IF;
END ;
        END LOOP;
        outcomes[v_refused] := 'rejected';
        answers[v_refused] := json_strip_nulls(json_build_object(
            'code', CASE WHEN v_state = 'P0001' THEN coalesce(nullif(v_code, ''), v_state) ELSE v_state END,
            'message', v_message, 'constraint', nullif(v_constraint, '')));
        done := v_refused;
    END LOOP;
    PERFORM pg_advisory_unlock_all();
END $$;

CREATE FUNCTION farwrite.call_guarded_template(p_group integer, p_functions integer[], p_ids uuid[], p_names text[], p_versions integer[], p_keys text[], p_origins text[], p_sequences bigint[], p_at bigint[], p_bodies bytea, p_starts integer[], p_expires bigint[], p_contexts text[], INOUT outcomes text[], INOUT answers text[], OUT done integer) RETURNS record
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION farwrite.call_template(j integer, p_functions integer[], p_ids uuid[], p_names text[], p_versions integer[], p_keys text[], p_origins text[], p_sequences bigint[], p_at bigint[], p_bodies bytea, p_starts integer[], INOUT answers text[]) RETURNS text[]
    LANGUAGE plpgsql
    AS $$
BEGIN
    /*call*/
END $$;

CREATE FUNCTION farwrite.cancel(p_id uuid, p_reason text) RETURNS text
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
DECLARE
    v_ended text;
    v_parked farwrite.parked;
    v_answer text := json_build_object('code', 'cancelled', 'message', 'an operator cancelled the command: ' || p_reason)::text;
BEGIN
    PERFORM farwrite.hold_lanes();
    SELECT CASE WHEN u.command_id IS NULL THEN l.outcome::text ELSE 'unconfirmed' END INTO v_ended
    FROM farwrite.look_up(ARRAY[p_id]) l LEFT JOIN farwrite.unconfirmed u USING (command_id);
    IF FOUND THEN
        RETURN v_ended;
    END IF;
    SELECT * INTO v_parked FROM farwrite.parked p WHERE p.command_id = p_id;
    IF FOUND THEN
        PERFORM farwrite.unpark(v_parked.stream_id,
            (v_parked.lane_hash % (SELECT lanes FROM farwrite.streams s WHERE s.stream_id = v_parked.stream_id))::integer,
            ARRAY[v_parked.sequence]);
        PERFORM farwrite.record(v_parked.stream_id, ARRAY[p_id], ARRAY[v_parked.fingerprint], ARRAY[v_parked.sequence],
            ARRAY[v_parked.published_at], ARRAY[greatest(v_parked.attempts, 1)], ARRAY['rejected'], ARRAY[v_answer]);
    ELSE
        IF farwrite.is_dated(p_id) THEN
            IF farwrite.id_time(p_id) < (SELECT known_from FROM farwrite.ledger_horizon)
               OR farwrite.id_time(p_id) > now() + interval '2 days' THEN
                RAISE EXCEPTION 'the time of the id, %, is not between the ledger''s horizon and two days from now', farwrite.id_time(p_id)
                    USING ERRCODE = '22008', HINT = 'A command with this id is refused when it comes: there is nothing to cancel.';
            END IF;
            PERFORM farwrite.make_ledger_days(farwrite.id_time(p_id), farwrite.id_time(p_id));
        END IF;
        -- Zeros match the fingerprint of any command under this id.
        PERFORM farwrite.record(0, ARRAY[p_id], ARRAY['00000000-0000-0000-0000-000000000000'::uuid], ARRAY[0::bigint],
            ARRAY[NULL::bigint], ARRAY[1], ARRAY['rejected'], ARRAY[v_answer]);
    END IF;
    INSERT INTO farwrite.operations (act, stream_id, sequence, command_id, reason)
    VALUES ('cancel', v_parked.stream_id, v_parked.sequence, p_id, p_reason);
    RETURN NULL;
END $$;

CREATE FUNCTION farwrite.change_row(p_plan farwrite.row_plan, p_key jsonb, p_set jsonb, p_if jsonb, p_meta farwrite.meta, p_absent text) RETURNS jsonb
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION farwrite.check_columns(p_table text, p_given text[], p_open text[], p_what text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
DECLARE
    v_closed text := (SELECT c FROM unnest(p_given) c WHERE c <> ALL (p_open) ORDER BY c LIMIT 1);
BEGIN
    IF v_closed IS NOT NULL THEN
        PERFORM farwrite.reject('not_allowed', format('column %s of %s is not open %s', to_json(left(v_closed, 100)), p_table, p_what));
    END IF;
END $$;

CREATE FUNCTION farwrite.check_row_body(p_body jsonb, p_objects text[], p_may_if boolean) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
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

CREATE FUNCTION farwrite.check_row_key(p_plan farwrite.row_plan, p_row jsonb, p_key text) RETURNS void
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION farwrite.choose_call(p_number text, p_numbers integer[], p_calls text[]) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog'
    AS $_$
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
END $_$;

CREATE FUNCTION farwrite.close_batch(p_xid text, p_stream integer, p_ids uuid[], p_fingerprints uuid[], p_sequences bigint[], p_at bigint[], p_attempts integer[], p_outcomes text[], p_answers text[], p_unconfirmed boolean[]) RETURNS void
    LANGUAGE plpgsql
    AS $$
BEGIN
    RESET ROLE;
    RESET ALL;
    PERFORM pg_catalog.pg_advisory_unlock_all();
    IF pg_catalog.pg_current_xact_id_if_assigned()::text IS DISTINCT FROM p_xid THEN
        RAISE EXCEPTION 'the batch''s transaction % was ended by one of its commands', p_xid
            USING ERRCODE = 'FW002', SCHEMA = 'farwrite', HINT = 'A handler must not commit or roll back: the worker does.';
    END IF;
    PERFORM farwrite.record(p_stream, p_ids, p_fingerprints, p_sequences, p_at, p_attempts, p_outcomes, p_answers, p_unconfirmed);
END $$;

CREATE FUNCTION farwrite.close_table(p_table regclass) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
BEGIN
    DELETE FROM farwrite.open_tables o WHERE o.name = farwrite.open_name(p_table);
    RETURN FOUND;
END $$;

CREATE FUNCTION farwrite.count_parked() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
BEGIN
    UPDATE farwrite.lanes l
    SET parked = coalesce(c.n, 0), paused = EXISTS (SELECT FROM farwrite.pauses)
    FROM farwrite.lanes m
    LEFT JOIN (SELECT p.stream_id, p.lane_hash % s.lanes AS lane, count(*) AS n
               FROM farwrite.parked p JOIN farwrite.streams s USING (stream_id)
               WHERE s.lanes > 0 GROUP BY 1, 2) c ON c.stream_id = m.stream_id AND c.lane = m.lane
    WHERE l.stream_id = m.stream_id AND l.lane = m.lane
      AND (l.parked <> coalesce(c.n, 0) OR l.paused <> EXISTS (SELECT FROM farwrite.pauses));
END $$;

CREATE FUNCTION farwrite.discard(p_stream integer, p_sequences bigint[], p_reason text) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
DECLARE
    v_count integer;
BEGIN
    IF coalesce(p_reason, '') = '' THEN
        RAISE EXCEPTION 'discarding a dead letter wants a reason' USING ERRCODE = '22023';
    END IF;
    WITH gone AS (
        DELETE FROM farwrite.dead_letters WHERE stream_id = p_stream AND sequence = ANY (p_sequences)
        RETURNING stream_id, sequence, command_id, reason
    ), noted AS (
        INSERT INTO farwrite.operations (act, stream_id, sequence, command_id, subject, reason)
        SELECT 'discard', stream_id, sequence, command_id, reason, p_reason FROM gone RETURNING 1
    )
    SELECT count(*) INTO v_count FROM noted;
    RETURN v_count;
END $$;

CREATE FUNCTION farwrite.drop_ledger_days(p_before timestamp with time zone) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
DECLARE
    v_day     timestamptz := date_trunc('day', p_before, 'UTC');
    v_name    text;
    v_dropped integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('farwrite.ledger'));
    UPDATE farwrite.ledger_horizon SET known_from = v_day WHERE known_from < v_day;
    FOR v_name IN
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'farwrite.ledger'::regclass
          AND substring(pg_get_expr(c.relpartbound, c.oid) FROM 'TO \(''([0-9a-f-]{36})''\)')::uuid <= farwrite.first_id_at(v_day)
    LOOP
        EXECUTE format('DROP TABLE farwrite.%I', v_name);
        v_dropped := v_dropped + 1;
    END LOOP;
    RETURN v_dropped;
END $$;

CREATE FUNCTION farwrite.due_commands(p_stream integer, p_lane integer, p_lanes integer, p_epoch uuid, p_limit integer, p_bytes bigint) RETURNS TABLE(sequence bigint, reason text, attempts integer, lacks_seconds double precision, subject text, headers json, body bytea, published_at bigint)
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    SET enable_seqscan TO 'off'
    AS $$
DECLARE
    v_key_queues text[];
BEGIN
    PERFORM FROM farwrite.lanes l
        WHERE l.stream_id = p_stream AND l.lane = p_lane AND l.epoch = p_epoch FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'lane % of stream % is not under epoch %', p_lane, p_stream, p_epoch
            USING ERRCODE = 'FW001', SCHEMA = 'farwrite', HINT = 'Another worker has taken over this database.';
    END IF;
    PERFORM farwrite.bring_due(p_stream, p_lane, p_lanes, p_limit);
    SELECT array_agg(d.key_queue ORDER BY d.due_at) INTO v_key_queues
    FROM (SELECT l.key_queue, l.due_at FROM farwrite.key_queues l
          WHERE l.stream_id = p_stream AND l.due_at <= clock_timestamp() AND l.lane_hash % p_lanes = p_lane
          ORDER BY l.due_at LIMIT p_limit) d;
    RETURN QUERY
        SELECT c.sequence, c.reason, c.attempts,
               CASE WHEN c.reason IN ('unknown_command', 'not_ready', 'behind')
                    THEN extract(epoch FROM clock_timestamp() - c.lacks_since) ELSE 0 END::double precision,
               c.subject, c.headers, c.body, c.published_at
        FROM (SELECT p.*, u.n, sum(octet_length(p.body)) OVER (ORDER BY p.step, u.n) - octet_length(p.body) AS before
              FROM unnest(v_key_queues) WITH ORDINALITY AS u (key_queue, n)
              CROSS JOIN LATERAL (
                  SELECT q.*, row_number() OVER (ORDER BY q.place) AS step FROM farwrite.parked q
                  WHERE q.stream_id = p_stream AND q.key_queue = u.key_queue AND q.place IS NOT NULL
                  ORDER BY q.place LIMIT greatest(1, p_limit / cardinality(v_key_queues))) p) c
        WHERE c.before < p_bytes
        ORDER BY c.n, c.place;
END $$;

CREATE FUNCTION farwrite.fence(p_stream integer, p_lane integer, p_epoch uuid, p_from bigint, p_to bigint, p_to_at bigint, p_to_id uuid, OUT parked bigint, OUT paused boolean) RETURNS record
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
BEGIN
    -- A batch of parked commands stays where the lane is.
    UPDATE farwrite.lanes l SET sequence = p_to, sequence_at = p_to_at, sequence_id = p_to_id
    WHERE l.stream_id = p_stream AND l.lane = p_lane AND l.epoch = p_epoch AND l.sequence = p_from
    RETURNING l.parked, l.paused INTO parked, paused;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'lane % of stream % is not at % under epoch %', p_lane, p_stream, p_from, p_epoch
            USING ERRCODE = 'FW001', SCHEMA = 'farwrite', HINT = 'Another worker has taken over this database.';
    END IF;
END $$;

CREATE FUNCTION farwrite.first_id_at(p_time timestamp with time zone) RETURNS uuid
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    SET search_path TO 'pg_catalog'
    RETURN ((lpad(to_hex((floor((EXTRACT(epoch FROM p_time) * (1000)::numeric)))::bigint), 12, '0'::text) || '70008000000000000000'::text))::uuid;

CREATE FUNCTION farwrite.hold_lanes() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
BEGIN
    PERFORM FROM farwrite.lanes ORDER BY stream_id, lane FOR UPDATE;
END $$;

CREATE FUNCTION farwrite.home() RETURNS text
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog'
    AS $$
    SELECT concat_ws('/', c.system_identifier, d.oid, 'farwrite.history'::regclass::oid)
    FROM pg_control_system() c, pg_database d WHERE d.datname = current_database()
$$;

CREATE FUNCTION farwrite.id_time(p_id uuid) RETURNS timestamp with time zone
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    SET search_path TO 'pg_catalog'
    RETURN CASE WHEN ((substr((p_id)::text, 15, 1) = '7'::text) AND (substr((p_id)::text, 20, 1) = ANY (ARRAY['8'::text, '9'::text, 'a'::text, 'b'::text]))) THEN to_timestamp((((((('x'::text || lpad(replace("left"((p_id)::text, 13), '-'::text, ''::text), 16, '0'::text)))::bit(64))::bigint)::numeric / 1000.0))::double precision) ELSE NULL::timestamp with time zone END;

CREATE FUNCTION farwrite.identity() RETURNS text
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog'
    AS $$
    SELECT o.identity FROM farwrite.owner o WHERE starts_with(o.identity, farwrite.home() || '/')
$$;

CREATE FUNCTION farwrite.is_any_known(p_ids uuid[], p_lowest uuid, p_highest uuid) RETURNS boolean
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
BEGIN
    RETURN EXISTS (
            SELECT FROM farwrite.ledger l
            WHERE l.command_id = ANY (p_ids) AND l.command_id BETWEEN p_lowest AND p_highest)
        OR EXISTS (SELECT FROM farwrite.lanes n WHERE n.parked > 0)
           AND EXISTS (SELECT FROM farwrite.parked p WHERE p.command_id = ANY (p_ids));
END $$;

CREATE FUNCTION farwrite.is_any_parked(p_ids uuid[]) RETURNS boolean
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
BEGIN
    RETURN EXISTS (SELECT FROM farwrite.lanes n WHERE n.parked > 0)
       AND EXISTS (SELECT FROM farwrite.parked p WHERE p.command_id = ANY (p_ids));
END $$;

CREATE FUNCTION farwrite.is_dated(p_id uuid) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (((get_byte(uuid_send(p_id), 6) >> 4) = 7) AND ((get_byte(uuid_send(p_id), 8) >> 6) = 2));

CREATE FUNCTION farwrite.is_own_fault(p_state text, p_constraint text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ((("left"(p_state, 2) = ANY (ARRAY['20'::text, '21'::text, '22'::text, '23'::text, '27'::text, '44'::text])) AND (p_state <> '2200H'::text) AND ((p_state <> '23514'::text) OR (p_constraint <> ''::text))) OR (p_state = ANY (ARRAY['P0001'::text, 'P0002'::text, 'P0003'::text])) OR (("left"(p_state, 1) ~ '[5-9I-Z]'::text) AND ("left"(p_state, 2) <> ALL (ARRAY['53'::text, '54'::text, '55'::text, '57'::text, '58'::text, '72'::text, 'P0'::text, 'XX'::text]))));

CREATE FUNCTION farwrite.keep_parked(p_stream integer, p_sequences bigint[], p_reasons text[], p_errors text[], p_attempts integer[], p_waits double precision[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    SET enable_seqscan TO 'off'
    AS $$
BEGIN
    WITH kept AS (
        UPDATE farwrite.parked p
        SET reason = u.reason, error = coalesce(u.error::json, p.error), attempts = u.attempts,
            lacks_since = CASE WHEN p.reason IN ('unknown_command', 'not_ready', 'behind') THEN p.lacks_since ELSE clock_timestamp() END
        FROM unnest(p_sequences, p_reasons, p_errors, p_attempts, p_waits) AS u (sequence, reason, error, attempts, wait)
        WHERE p.stream_id = p_stream AND p.sequence = u.sequence
        RETURNING p.key_queue, u.wait
    )
    UPDATE farwrite.key_queues l
    SET due_at = coalesce(clock_timestamp() + make_interval(secs => k.wait), 'infinity')
    FROM kept k WHERE l.stream_id = p_stream AND l.key_queue = k.key_queue;
END $$;

CREATE FUNCTION farwrite.key_of(p_table text, p_values text[]) RETURNS text
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    SET search_path TO 'pg_catalog'
    AS $_$
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
END $_$;

CREATE FUNCTION farwrite.key_value(p_value anyelement) RETURNS text
    LANGUAGE plpgsql STABLE STRICT
    SET search_path TO 'pg_catalog'
    SET "TimeZone" TO 'UTC'
    SET "DateStyle" TO 'ISO, MDY'
    SET bytea_output TO 'hex'
    AS $$
BEGIN
    RETURN p_value::text;
END $$;

CREATE FUNCTION farwrite.known(p_ids uuid[], p_fingerprints uuid[], OUT outcomes text[], OUT answers text[]) RETURNS record
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog'
    AS $$
DECLARE
    r record;
BEGIN
    outcomes := array_fill(NULL::text, ARRAY[cardinality(p_ids)]);
    answers := outcomes;
    PERFORM FROM farwrite.look_up(p_ids);
    IF NOT FOUND THEN
        RETURN;
    END IF;
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

CREATE FUNCTION farwrite.look_up(p_ids uuid[]) RETURNS TABLE(command_id uuid, outcome farwrite.outcome, answer json, fingerprint uuid)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
DECLARE
    v_dated   uuid[];
    v_derived uuid[];
BEGIN
    SELECT array_agg(i ORDER BY i) FILTER (WHERE farwrite.is_dated(i)), array_agg(i) FILTER (WHERE NOT farwrite.is_dated(i))
    INTO v_dated, v_derived
    FROM unnest(p_ids) AS i;
    IF v_dated IS NOT NULL THEN
        RETURN QUERY SELECT l.command_id, l.outcome, l.answer, l.fingerprint FROM farwrite.ledger l
            WHERE l.command_id = ANY (v_dated)
              AND l.command_id BETWEEN v_dated[1] AND v_dated[cardinality(v_dated)];
    END IF;
    IF v_derived IS NOT NULL THEN
        RETURN QUERY SELECT l.command_id, l.outcome, l.answer, l.fingerprint FROM farwrite.ledger_derived l
            WHERE l.command_id = ANY (v_derived);
    END IF;
END $$;

CREATE FUNCTION farwrite.make_dispatcher() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
DECLARE
    c_body CONSTANT text := 'farwrite.body(p_bodies, p_starts, j)';
    -- Made for those functions only that take it.
    c_meta CONSTANT text := 'ROW(p_ids[j], p_names[j], p_versions[j], p_keys[j], p_origins[j], p_sequences[j], to_timestamp(p_at[j] / 1e9))::farwrite.meta';
    r record;
    v_call text;
    v_numbers integer[] := '{}';
    v_calls text[] := '{}';
    v_step text;
BEGIN
    UPDATE farwrite.registry SET changes = changes + 1;
    FOR r IN
        SELECT f.function_id, f.takes_meta, p.prorettype, n.nspname, p.proname
        FROM farwrite.functions f
        JOIN pg_proc p ON p.oid = to_regprocedure(f.signature)
        JOIN pg_namespace n ON n.oid = p.pronamespace
        ORDER BY f.function_id
    LOOP
        v_call := format('%I.%I(%s)', r.nspname, r.proname, concat_ws(', ', c_body, CASE WHEN r.takes_meta THEN c_meta END));
        v_numbers := array_append(v_numbers, r.function_id);
        v_calls := array_append(v_calls, CASE
            WHEN r.prorettype = 'void'::regtype THEN 'PERFORM ' || v_call
            WHEN r.prorettype = ANY ('{json,jsonb,integer,bigint}'::regtype[]) THEN 'answers[j] := ' || v_call || '::text'
            ELSE 'answers[j] := to_json(' || v_call || ')::text'
        END);
    END LOOP;
    v_call := farwrite.choose_call('p_functions[j]', v_numbers, v_calls);
    SELECT p.prosrc || ';' INTO STRICT v_step
    FROM pg_proc p WHERE p.pronamespace = 'farwrite'::regnamespace AND p.proname = 'step_template';
    FOR r IN
        SELECT pg_get_functiondef(p.oid) AS template, 'farwrite.' || p.proname || '(' AS head
        FROM pg_proc p WHERE p.pronamespace = 'farwrite'::regnamespace AND p.proname LIKE 'call%\_template'
    LOOP
        EXECUTE replace(replace(replace(r.template,
            r.head, replace(r.head, '_template', '')), '/*step*/', v_step), '/*call*/', v_call);
    END LOOP;
END $$;

CREATE FUNCTION farwrite.make_ledger_days(p_from timestamp with time zone, p_to timestamp with time zone) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
DECLARE
    v_day  timestamp := date_trunc('day', p_from AT TIME ZONE 'UTC');
    v_last timestamp := date_trunc('day', p_to AT TIME ZONE 'UTC');
    v_name text;
    v_made integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('farwrite.ledger'));
    SELECT greatest(v_day, known_from AT TIME ZONE 'UTC') INTO v_day FROM farwrite.ledger_horizon;
    WHILE v_day <= v_last LOOP
        v_name := 'ledger_' || to_char(v_day, 'YYYYMMDD');
        IF to_regclass('farwrite.' || v_name) IS NULL THEN
            EXECUTE format('CREATE TABLE farwrite.%I (LIKE farwrite.ledger INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', v_name);
            EXECUTE format('ALTER TABLE farwrite.ledger ATTACH PARTITION farwrite.%I FOR VALUES FROM (%L) TO (%L)',
                v_name,
                farwrite.first_id_at(v_day AT TIME ZONE 'UTC'),
                farwrite.first_id_at((v_day + interval '1 day') AT TIME ZONE 'UTC'));
            v_made := v_made + 1;
        END IF;
        v_day := v_day + interval '1 day';
    END LOOP;
    RETURN v_made;
END $$;

CREATE FUNCTION farwrite.next_due(p_stream integer, p_lane integer, p_lanes integer, OUT parked bigint, OUT paused boolean, OUT seconds double precision, OUT registry bigint) RETURNS record
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog'
    SET enable_seqscan TO 'off'
    AS $$
    SELECT l.parked, l.paused, CASE WHEN l.parked > 0 THEN extract(epoch FROM least(
        (SELECT p.due_at FROM farwrite.key_queues p
         WHERE p.stream_id = p_stream AND p.lane_hash % p_lanes = p_lane AND p.due_at < 'infinity' ORDER BY p.due_at LIMIT 1),
        (SELECT p.due_at FROM farwrite.parked p
         WHERE p.stream_id = p_stream AND p.lane_hash % p_lanes = p_lane AND p.place IS NULL ORDER BY p.due_at LIMIT 1))
        - clock_timestamp())::double precision END,
        (SELECT changes FROM farwrite.registry)
    FROM farwrite.lanes l WHERE l.stream_id = p_stream AND l.lane = p_lane
$$;

CREATE FUNCTION farwrite.open_batch(p_stream integer, p_lane integer, p_epoch uuid, p_from bigint, p_to bigint, p_to_at bigint, p_to_id uuid, p_ids uuid[], p_fingerprints uuid[], p_key_queues text[], OUT xid text, OUT now_ns bigint, OUT outcomes text[], OUT answers text[], OUT parked bigint, OUT parked_ids uuid[], OUT parked_fingerprints uuid[], OUT parked_sequences bigint[], OUT parked_ahead bigint[], OUT held_key_queues text[], OUT held_commands bigint[], OUT paused_names text[], OUT paused_keys text[]) RETURNS record
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    SET enable_seqscan TO 'off'
    AS $$
DECLARE
    v_paused boolean;
BEGIN
    SELECT f.parked, f.paused INTO parked, v_paused
    FROM farwrite.fence(p_stream, p_lane, p_epoch, p_from, p_to, p_to_at, p_to_id) f;
    xid := pg_current_xact_id()::text;
    SELECT k.outcomes, farwrite.shortened(k.answers, k.outcomes) INTO outcomes, answers FROM farwrite.known(p_ids, p_fingerprints) k;
    -- Of any lane: an id may wait there under another key.
    SELECT array_agg(p.command_id), array_agg(p.fingerprint), array_agg(p.sequence),
           array_agg((SELECT count(*) FROM (
               SELECT FROM farwrite.parked q
               WHERE q.stream_id = p.stream_id AND q.key_queue = p.key_queue AND q.place < p.place LIMIT 4096) a))
    INTO parked_ids, parked_fingerprints, parked_sequences, parked_ahead
    FROM farwrite.parked p WHERE p.command_id = ANY (p_ids) AND p.stream_id = p_stream;
    IF parked > 0 THEN
        SELECT array_agg(l.key_queue), array_agg(l.commands) INTO held_key_queues, held_commands
        FROM farwrite.key_queues l WHERE l.stream_id = p_stream AND l.key_queue = ANY (p_key_queues);
    END IF;
    IF v_paused THEN
        SELECT array_agg(p.name) FILTER (WHERE p.name IS NOT NULL), array_agg(p.order_key) FILTER (WHERE p.order_key IS NOT NULL)
        INTO paused_names, paused_keys FROM farwrite.pauses p;
    END IF;
    now_ns := (extract(epoch FROM clock_timestamp()) * 1e9)::bigint;
END $$;

CREATE FUNCTION farwrite.open_name(p_table regclass) RETURNS text
    LANGUAGE sql STABLE STRICT
    SET search_path TO 'pg_catalog'
    AS $$
    SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = p_table
$$;

CREATE FUNCTION farwrite.open_table(p_table regclass, insertable text[] DEFAULT NULL::text[], updatable text[] DEFAULT NULL::text[], deletable boolean DEFAULT false, readable text[] DEFAULT NULL::text[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $_$
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
END $_$;

CREATE FUNCTION farwrite.outcome_of(p_id uuid) RETURNS TABLE(status text, answer json, fingerprint uuid, attempts integer, stream text, sequence bigint, published_at timestamp with time zone, settled_at timestamp with time zone, reason text, due_at timestamp with time zone)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog'
    AS $$
    SELECT o.status, o.answer, o.fingerprint, o.attempts, o.stream, o.sequence, o.published_at, o.settled_at, o.reason, o.due_at
    FROM farwrite.outcomes_of(ARRAY[p_id]) o
$$;

CREATE FUNCTION farwrite.outcomes_of(p_ids uuid[]) RETURNS TABLE(command_id uuid, status text, answer json, fingerprint uuid, attempts integer, stream text, sequence bigint, published_at timestamp with time zone, settled_at timestamp with time zone, reason text, due_at timestamp with time zone)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog'
    SET enable_seqscan TO 'off'
    AS $$
DECLARE
    v_dated   uuid[];
    v_derived uuid[];
    v_rest    uuid[] := p_ids;
    v_untold  uuid[] := (SELECT array_agg(u.command_id) FROM farwrite.unconfirmed u WHERE u.command_id = ANY (p_ids));
    v_first   uuid;
    v_last    uuid;
    r         record;
BEGIN
    SELECT array_agg(i) FILTER (WHERE dated), array_agg(i) FILTER (WHERE NOT dated)
    INTO v_dated, v_derived
    FROM (SELECT i, farwrite.is_dated(i) AS dated FROM unnest(p_ids) AS i) AS ids;
    -- The bounds keep partitions of other days out; PostgreSQL 15 has no min() of uuid.
    SELECT i INTO v_first FROM unnest(v_dated) AS i ORDER BY i LIMIT 1;
    SELECT i INTO v_last FROM unnest(v_dated) AS i ORDER BY i DESC LIMIT 1;
    FOR r IN
        SELECT l.command_id, l.outcome, l.answer, l.fingerprint, l.attempts, l.stream_id, l.sequence, l.published_at, l.settled_at
        FROM farwrite.ledger l
        WHERE l.command_id = ANY (v_dated) AND l.command_id BETWEEN v_first AND v_last
        UNION ALL
        SELECT l.command_id, l.outcome, l.answer, l.fingerprint, l.attempts, l.stream_id, l.sequence, l.published_at, l.settled_at
        FROM farwrite.ledger_derived l
        WHERE l.command_id = ANY (v_derived)
    LOOP
        command_id := r.command_id;
        reason := CASE WHEN r.command_id = ANY (v_untold) THEN 'unconfirmed' END;
        status := coalesce(reason, r.outcome::text);
        answer := CASE WHEN reason IS NULL THEN r.answer END;
        fingerprint := r.fingerprint;
        attempts := r.attempts;
        stream := (SELECT s.name FROM farwrite.streams s WHERE s.stream_id = r.stream_id);
        sequence := CASE WHEN stream IS NOT NULL THEN r.sequence END;
        published_at := r.published_at;
        settled_at := r.settled_at;
        RETURN NEXT;
        v_rest := array_remove(v_rest, r.command_id);
    END LOOP;
    IF cardinality(v_rest) = 0 THEN
        RETURN;
    END IF;
    RETURN QUERY
        SELECT DISTINCT ON (p.command_id) p.command_id, 'parked', p.error, p.fingerprint, p.attempts, s.name, p.sequence,
               to_timestamp(p.published_at / 1e9), NULL::timestamptz, p.reason, coalesce(p.due_at, l.due_at)
        FROM farwrite.parked p
        LEFT JOIN farwrite.key_queues l ON l.stream_id = p.stream_id AND l.key_queue = p.key_queue AND p.place IS NOT NULL
        LEFT JOIN farwrite.streams s ON s.stream_id = p.stream_id
        WHERE p.command_id = ANY (v_rest)
        ORDER BY p.command_id, p.sequence;
    -- What was no command has no row in the ledger. An id that came undecodable once may have come
    -- well later: then the ledger, or what is parked, has the last word.
    RETURN QUERY
        SELECT DISTINCT ON (d.command_id) d.command_id, 'dead_lettered',
               json_build_object('reason', d.reason, 'message', d.message), NULL::uuid, 1, s.name, d.sequence,
               d.published_at, d.dead_lettered_at, NULL::text, NULL::timestamptz
        FROM farwrite.dead_letters d LEFT JOIN farwrite.streams s USING (stream_id)
        WHERE d.command_id = ANY (v_rest)
          AND NOT EXISTS (SELECT FROM farwrite.parked p WHERE p.command_id = d.command_id)
        ORDER BY d.command_id, d.sequence;
END $$;

CREATE FUNCTION farwrite.owner_state(OUT state text, OUT epoch uuid, OUT worker text, OUT silent_seconds double precision) RETURNS record
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog'
    AS $$
    SELECT CASE
               WHEN o.epoch IS NULL THEN 'none'
               WHEN o.released_at IS NOT NULL THEN 'released'
               WHEN a.pid IS NULL THEN 'gone'
               WHEN a.state = 'disabled' OR a.state_change IS NULL THEN 'alive'
               WHEN clock_timestamp() - a.state_change > o.lease THEN 'silent'
               ELSE 'alive'
           END,
           o.epoch, o.worker, extract(epoch FROM clock_timestamp() - a.state_change)::double precision
    FROM (SELECT) one
    LEFT JOIN farwrite.owner o ON true
    LEFT JOIN pg_stat_activity a
        ON a.pid = o.pid AND coalesce(a.backend_start = o.session_began, true) AND a.datname = current_database()
$$;

CREATE FUNCTION farwrite.park(p_stream integer, p_lane integer, p_sequences bigint[], p_ids uuid[], p_fingerprints uuid[], p_names text[], p_versions integer[], p_keys text[], p_key_queues text[], p_lane_hashes bigint[], p_subjects text[], p_headers text[], p_bodies bytea[], p_at bigint[], p_reasons text[], p_errors text[], p_attempts integer[], p_scheduled bigint[], p_waits double precision[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
BEGIN
    WITH new AS (
        SELECT u.*, row_number() OVER (PARTITION BY u.key_queue, u.scheduled IS NULL ORDER BY u.n) AS step,
               count(*) OVER (PARTITION BY u.key_queue, u.scheduled IS NULL) AS steps
        FROM unnest(p_sequences, p_ids, p_fingerprints, p_names, p_versions, p_keys, p_key_queues, p_lane_hashes, p_subjects,
                    p_headers, p_bodies, p_at, p_reasons, p_errors, p_attempts, p_scheduled, p_waits) WITH ORDINALITY
            AS u (sequence, id, fingerprint, name, version, order_key, key_queue, lane_hash, subject,
                  headers, body, at, reason, error, attempts, scheduled, wait, n)
    ), queues AS (
        INSERT INTO farwrite.key_queues AS l (stream_id, key_queue, lane_hash, commands, last_place, due_at)
        SELECT p_stream, key_queue, lane_hash, steps, steps, coalesce(clock_timestamp() + make_interval(secs => wait), 'infinity')
        FROM new WHERE scheduled IS NULL AND step = 1
        ON CONFLICT (stream_id, key_queue) DO UPDATE
        SET commands = l.commands + excluded.commands, last_place = l.last_place + excluded.commands
        RETURNING l.key_queue, l.last_place
    )
    INSERT INTO farwrite.parked (stream_id, sequence, command_id, fingerprint, name, version, order_key, key_queue, lane_hash,
        place, due_at, reason, error, attempts, subject, headers, body, published_at)
    SELECT p_stream, n.sequence, n.id, n.fingerprint, n.name, n.version, n.order_key, n.key_queue, n.lane_hash,
           CASE WHEN n.scheduled IS NULL THEN l.last_place - n.steps + n.step END,
           to_timestamp(n.scheduled / 1e9),
           n.reason, n.error::json, n.attempts, n.subject, n.headers::json, n.body, n.at
    FROM new n LEFT JOIN queues l USING (key_queue);
    UPDATE farwrite.lanes SET parked = parked + cardinality(p_sequences) WHERE stream_id = p_stream AND lane = p_lane;
END $$;

CREATE FUNCTION farwrite.pause(p_name text, p_key text, p_reason text) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
DECLARE
    v_new boolean;
BEGIN
    PERFORM farwrite.hold_lanes();
    INSERT INTO farwrite.pauses (name, order_key, reason) VALUES (p_name, p_key, p_reason)
    ON CONFLICT (name, order_key) DO NOTHING;
    v_new := FOUND;
    IF v_new THEN
        INSERT INTO farwrite.operations (act, subject, reason)
        VALUES ('pause', coalesce('name ' || p_name, 'key ' || p_key), p_reason);
    END IF;
    UPDATE farwrite.lanes SET paused = true WHERE NOT paused;
    RETURN v_new;
END $$;

CREATE FUNCTION farwrite.plan_row(p_verb text, p_body jsonb) RETURNS farwrite.row_plan
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $_$
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
END $_$;

CREATE FUNCTION farwrite.record(p_stream integer, p_ids uuid[], p_fingerprints uuid[], p_sequences bigint[], p_at bigint[], p_attempts integer[], p_outcomes text[], p_answers text[], p_unconfirmed boolean[] DEFAULT '{}'::boolean[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
DECLARE
    v_recorded bigint;
BEGIN
    INSERT INTO farwrite.ledger (command_id, outcome, answer, fingerprint, stream_id, sequence, attempts, published_at)
    SELECT i.id, CASE i.outcome WHEN 'applied' THEN 'applied' ELSE i.outcome::farwrite.outcome END, i.answer::json, i.fingerprint, p_stream, i.sequence,
           coalesce(i.attempts, 1), to_timestamp(i.at / 1e9::float8)
    FROM unnest(p_ids, p_fingerprints, p_sequences, p_at, p_attempts, p_outcomes, p_answers)
        AS i (id, fingerprint, sequence, at, attempts, outcome, answer)
    WHERE i.outcome IS NOT NULL AND farwrite.is_dated(i.id);
    GET DIAGNOSTICS v_recorded = ROW_COUNT;
    IF v_recorded < cardinality(p_ids) THEN
        INSERT INTO farwrite.ledger_derived (command_id, outcome, answer, fingerprint, stream_id, sequence, attempts, published_at)
        SELECT i.id, i.outcome::farwrite.outcome, i.answer::json, i.fingerprint, p_stream, i.sequence,
               coalesce(i.attempts, 1), to_timestamp(i.at / 1e9::float8)
        FROM unnest(p_ids, p_fingerprints, p_sequences, p_at, p_attempts, p_outcomes, p_answers)
            AS i (id, fingerprint, sequence, at, attempts, outcome, answer)
        WHERE i.outcome IS NOT NULL AND NOT farwrite.is_dated(i.id);
    END IF;
    IF p_unconfirmed <> '{}' THEN
        INSERT INTO farwrite.unconfirmed (command_id)
        SELECT i.id FROM unnest(p_ids, p_outcomes, p_unconfirmed) AS i (id, outcome, unconfirmed)
        WHERE i.unconfirmed AND i.outcome <> 'expired'
        ON CONFLICT DO NOTHING;
    END IF;
END $$;

CREATE FUNCTION farwrite.register(p_name text, p_function regprocedure, version integer DEFAULT 1, alone boolean DEFAULT false, json_schema json DEFAULT NULL::json) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
DECLARE
    v_function pg_proc;
    v_arguments text;
BEGIN
    SELECT * INTO STRICT v_function FROM pg_proc WHERE oid = p_function;
    v_arguments := oidvectortypes(v_function.proargtypes);
    IF v_function.prokind <> 'f' OR v_function.proretset THEN
        RAISE EXCEPTION '% is not a plain function: a command needs one that returns one value', p_function;
    ELSIF v_arguments NOT IN ('jsonb', 'jsonb, farwrite.meta') THEN
        RAISE EXCEPTION '% does not take (jsonb) or (jsonb, farwrite.meta)', p_function
            USING HINT = 'The body arrives as jsonb; a second argument receives id, key, origin and place in the stream.';
    ELSIF json_typeof(register.json_schema) NOT IN ('object', 'boolean') THEN
        RAISE EXCEPTION 'the JSON Schema is not an object';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('farwrite.functions'));
    INSERT INTO farwrite.functions AS f (name, version, signature, takes_meta, alone, json_schema)
    VALUES (p_name, register.version, p_function::text, v_arguments <> 'jsonb', register.alone, register.json_schema)
    ON CONFLICT ON CONSTRAINT functions_name_version_key DO UPDATE
    SET signature = excluded.signature, takes_meta = excluded.takes_meta, alone = excluded.alone,
        json_schema = excluded.json_schema, registered_at = now();
    PERFORM farwrite.make_dispatcher();
    UPDATE farwrite.key_queues l SET due_at = clock_timestamp()
    FROM farwrite.parked p
    WHERE p.stream_id = l.stream_id AND p.key_queue = l.key_queue AND p.name = p_name AND p.reason = 'unknown_command';
END $$;

CREATE FUNCTION farwrite.reject(p_code text, p_message text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'P0001', MESSAGE = p_message, DATATYPE = p_code;
END $$;

CREATE FUNCTION farwrite.release(p_stream integer, p_sequences bigint[], p_reason text) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
DECLARE
    v_count integer;
BEGIN
    PERFORM farwrite.hold_lanes();
    UPDATE farwrite.parked SET due_at = clock_timestamp()
    WHERE stream_id = p_stream AND sequence = ANY (p_sequences) AND place IS NULL;
    UPDATE farwrite.key_queues l SET due_at = clock_timestamp()
    FROM farwrite.parked p
    WHERE p.stream_id = p_stream AND p.sequence = ANY (p_sequences) AND p.place IS NOT NULL
      AND l.stream_id = p.stream_id AND l.key_queue = p.key_queue;
    WITH noted AS (
        INSERT INTO farwrite.operations (act, stream_id, sequence, command_id, subject, reason)
        SELECT 'release', p.stream_id, p.sequence, p.command_id, p.reason, p_reason
        FROM farwrite.parked p WHERE p.stream_id = p_stream AND p.sequence = ANY (p_sequences) RETURNING 1
    )
    SELECT count(*) INTO v_count FROM noted;
    RETURN v_count;
END $$;

CREATE FUNCTION farwrite.repeated_answer(p_outcome farwrite.outcome, p_answer json, p_stored uuid, p_fingerprint uuid, OUT outcome text, OUT answer text) RETURNS record
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog'
    AS $$
    SELECT CASE WHEN is_same THEN p_outcome::text ELSE 'rejected' END,
           CASE WHEN is_same THEN p_answer::text
                ELSE '{"code":"id_reused","message":"this command id was used for another command (its name, version, key or body differs); nothing was applied"}' END
    FROM (SELECT p_stored = p_fingerprint OR p_stored = '00000000-0000-0000-0000-000000000000') AS s (is_same)
$$;

CREATE FUNCTION farwrite.requeue(p_stream integer, p_sequences bigint[], p_ids uuid[], p_fingerprints uuid[], p_names text[], p_versions integer[], p_keys text[], p_key_queues text[], p_lane_hashes bigint[], p_reason text) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
DECLARE
    r record;
    v_count integer := 0;
BEGIN
    PERFORM farwrite.hold_lanes();
    -- An id's day may have been dropped since.
    PERFORM farwrite.make_ledger_days(t, t)
    FROM (SELECT DISTINCT date_trunc('day', farwrite.id_time(i), 'UTC') FROM unnest(p_ids) i WHERE farwrite.is_dated(i)) d (t);
    FOR r IN
        SELECT s.lanes, u.lane_hash % s.lanes AS lane,
               array_agg(d.sequence ORDER BY d.sequence) AS sequences, array_agg(u.id ORDER BY d.sequence) AS ids,
               array_agg(u.fingerprint ORDER BY d.sequence) AS fingerprints, array_agg(u.name ORDER BY d.sequence) AS names,
               array_agg(u.version ORDER BY d.sequence) AS versions, array_agg(u.order_key ORDER BY d.sequence) AS keys,
               array_agg(u.key_queue ORDER BY d.sequence) AS key_queues, array_agg(u.lane_hash ORDER BY d.sequence) AS hashes,
               array_agg(d.subject ORDER BY d.sequence) AS subjects, array_agg(d.headers::text ORDER BY d.sequence) AS headers,
               array_agg(d.body ORDER BY d.sequence) AS bodies,
               array_agg((extract(epoch FROM d.published_at) * 1e9)::bigint ORDER BY d.sequence) AS at
        FROM unnest(p_sequences, p_ids, p_fingerprints, p_names, p_versions, p_keys, p_key_queues, p_lane_hashes)
            AS u (sequence, id, fingerprint, name, version, order_key, key_queue, lane_hash)
        JOIN farwrite.dead_letters d ON d.stream_id = p_stream AND d.sequence = u.sequence
        JOIN farwrite.streams s ON s.stream_id = p_stream
        GROUP BY 1, 2
    LOOP
        PERFORM farwrite.park(p_stream, r.lane::integer, r.sequences, r.ids, r.fingerprints, r.names, r.versions, r.keys,
            r.key_queues, r.hashes, r.subjects, r.headers, r.bodies, r.at,
            array_fill('requeued'::text, ARRAY[cardinality(r.ids)]), array_fill(NULL::text, ARRAY[cardinality(r.ids)]),
            array_fill(0, ARRAY[cardinality(r.ids)]), array_fill(NULL::bigint, ARRAY[cardinality(r.ids)]),
            array_fill(0::double precision, ARRAY[cardinality(r.ids)]));
        DELETE FROM farwrite.ledger WHERE command_id = ANY (r.ids) AND outcome = 'dead_lettered';
        DELETE FROM farwrite.ledger_derived WHERE command_id = ANY (r.ids) AND outcome = 'dead_lettered';
        INSERT INTO farwrite.operations (act, stream_id, sequence, command_id, subject, reason)
        SELECT 'requeue', d.stream_id, d.sequence, d.command_id, d.reason, p_reason
        FROM farwrite.dead_letters d WHERE d.stream_id = p_stream AND d.sequence = ANY (r.sequences);
        DELETE FROM farwrite.dead_letters WHERE stream_id = p_stream AND sequence = ANY (r.sequences);
        v_count := v_count + cardinality(r.ids);
    END LOOP;
    RETURN v_count;
END $$;

CREATE FUNCTION farwrite.requires_protocol() RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN 1;

CREATE FUNCTION farwrite.resume(p_name text, p_key text) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
DECLARE
    v_found boolean;
BEGIN
    PERFORM farwrite.hold_lanes();
    DELETE FROM farwrite.pauses p
    WHERE p.name IS NOT DISTINCT FROM p_name AND p.order_key IS NOT DISTINCT FROM p_key;
    v_found := FOUND;
    IF v_found THEN
        INSERT INTO farwrite.operations (act, subject) VALUES ('resume', coalesce('name ' || p_name, 'key ' || p_key));
        UPDATE farwrite.key_queues SET due_at = clock_timestamp() WHERE due_at = 'infinity';
    END IF;
    UPDATE farwrite.lanes SET paused = EXISTS (SELECT FROM farwrite.pauses)
    WHERE paused <> EXISTS (SELECT FROM farwrite.pauses);
    RETURN v_found;
END $$;

CREATE FUNCTION farwrite.row_delete(p_body jsonb, p_meta farwrite.meta) RETURNS jsonb
    LANGUAGE plpgsql
    AS $$
BEGIN
    RETURN farwrite.change_row(farwrite.plan_row('delete', p_body), p_body->'key', NULL, p_body->'if', p_meta, 'not_found');
END $$;

CREATE FUNCTION farwrite.row_insert(p_body jsonb, p_meta farwrite.meta) RETURNS jsonb
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION farwrite.row_key(p_table regclass, p_key jsonb) RETURNS text
    LANGUAGE plpgsql STABLE
    AS $_$
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
END $_$;

CREATE FUNCTION farwrite.row_update(p_body jsonb, p_meta farwrite.meta) RETURNS jsonb
    LANGUAGE plpgsql
    AS $$
BEGIN
    RETURN farwrite.change_row(farwrite.plan_row('update', p_body), p_body->'key', p_body->'set', p_body->'if', p_meta, 'not_found');
END $$;

CREATE FUNCTION farwrite.row_upsert(p_body jsonb, p_meta farwrite.meta) RETURNS jsonb
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION farwrite.shortened(p_answers text[], p_outcomes text[]) RETURNS text[]
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog'
    AS $$
DECLARE
    v_room   bigint := 4 << 20;
    v_bytes  bigint;
    v_told   text[] := p_answers;
BEGIN
    FOR j IN 1 .. coalesce(cardinality(p_answers), 0) LOOP
        CONTINUE WHEN p_outcomes[j] <> 'applied';
        v_bytes := octet_length(p_answers[j]);
        IF v_bytes > v_room THEN
            v_told[j] := '#' || v_bytes;
        ELSIF v_bytes IS NOT NULL THEN
            v_room := v_room - v_bytes;
        END IF;
    END LOOP;
    RETURN v_told;
END $$;

CREATE FUNCTION farwrite.step_template(j integer, p_functions integer[], p_ids uuid[], p_names text[], p_versions integer[], p_keys text[], p_origins text[], p_sequences bigint[], p_at bigint[], p_bodies bytea, p_starts integer[], p_expires bigint[], p_contexts text[], INOUT outcomes text[], INOUT answers text[]) RETURNS record
    LANGUAGE plpgsql
    AS $$
BEGIN
    IF cardinality(p_expires) > 0 AND p_expires[j] <= extract(epoch FROM clock_timestamp()) * 1e9 THEN
        outcomes[j] := 'expired';
        answers[j] := NULL;
    ELSE
        IF cardinality(p_contexts) > 0 THEN
            PERFORM set_config('farwrite.context', coalesce(p_contexts[j], ''), true);
        END IF;
        /*call*/
        -- What a lone command defers is its commit's affair.
        IF cardinality(p_functions) > 1 THEN
            SET CONSTRAINTS ALL IMMEDIATE;
        END IF;
        RESET ROLE;
        RESET ALL;
        outcomes[j] := 'applied';
    END IF;
END $$;

CREATE FUNCTION farwrite.timeline_end(p_timeline integer, p_now integer) RETURNS pg_lsn
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog'
    AS $$
DECLARE
    v_file text;
BEGIN
    v_file := pg_read_file('pg_wal/' || upper(lpad(to_hex(p_now), 8, '0')) || '.history');
    RETURN (regexp_match(v_file, '^\s*' || p_timeline || '\s+([0-9A-F]+/[0-9A-F]+)', 'n'))[1]::pg_lsn;
EXCEPTION WHEN insufficient_privilege OR undefined_file THEN
    RETURN NULL;
END $$;

CREATE FUNCTION farwrite.try_later(p_wait interval, p_message text DEFAULT 'asked to be tried later'::text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'FW010', MESSAGE = p_message, SCHEMA = 'farwrite',
        DETAIL = greatest(0, extract(epoch FROM p_wait) * 1000)::bigint::text;
END $$;

CREATE FUNCTION farwrite.unpark(p_stream integer, p_lane integer, p_sequences bigint[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    SET enable_seqscan TO 'off'
    AS $$
DECLARE
    v_gone bigint;
BEGIN
    WITH gone AS (
        DELETE FROM farwrite.parked WHERE stream_id = p_stream AND sequence = ANY (p_sequences)
        RETURNING key_queue, place
    ), counts AS (
        SELECT key_queue, count(*) AS n FROM gone WHERE place IS NOT NULL GROUP BY key_queue
    ), shorter AS (
        UPDATE farwrite.key_queues l SET commands = l.commands - c.n, due_at = clock_timestamp()
        FROM counts c WHERE l.stream_id = p_stream AND l.key_queue = c.key_queue
    )
    SELECT count(*) INTO v_gone FROM gone;
    DELETE FROM farwrite.key_queues WHERE stream_id = p_stream AND commands = 0;
    UPDATE farwrite.lanes SET parked = parked - v_gone WHERE stream_id = p_stream AND lane = p_lane;
END $$;

CREATE FUNCTION farwrite.unregister(p_name text, version integer DEFAULT 1) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
DECLARE
    v_found boolean;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('farwrite.functions'));
    DELETE FROM farwrite.functions f WHERE f.name = p_name AND f.version = unregister.version;
    v_found := FOUND;
    PERFORM farwrite.make_dispatcher();
    RETURN v_found;
END $$;

CREATE TABLE farwrite.dead_letters (
    stream_id integer NOT NULL,
    sequence bigint NOT NULL,
    command_id uuid,
    reason text NOT NULL,
    message text NOT NULL,
    subject text NOT NULL,
    headers json NOT NULL,
    body bytea NOT NULL,
    published_at timestamp with time zone NOT NULL,
    dead_lettered_at timestamp with time zone DEFAULT now() NOT NULL,
    name text,
    order_key text
);

CREATE TABLE farwrite.function_installs (
    install_id integer NOT NULL,
    revision integer NOT NULL,
    hash text NOT NULL,
    signatures text[] NOT NULL,
    installed_by text DEFAULT SESSION_USER NOT NULL,
    installed_at timestamp with time zone DEFAULT now() NOT NULL
);

ALTER TABLE farwrite.function_installs ALTER COLUMN install_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME farwrite.function_installs_install_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE farwrite.functions (
    function_id integer NOT NULL,
    name text NOT NULL,
    version integer NOT NULL,
    signature text NOT NULL,
    takes_meta boolean NOT NULL,
    alone boolean NOT NULL,
    json_schema json,
    registered_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT functions_name_check CHECK (((name ~ '^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$'::text) AND (length(name) <= 128))),
    CONSTRAINT functions_version_check CHECK ((version > 0))
);

ALTER TABLE farwrite.functions ALTER COLUMN function_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME farwrite.functions_function_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE farwrite.history (
    epoch uuid NOT NULL,
    number bigint NOT NULL,
    parent uuid,
    timeline integer NOT NULL,
    begin_lsn pg_lsn NOT NULL,
    parent_lsn pg_lsn,
    left_timeline integer,
    taken_at timestamp with time zone NOT NULL,
    identity text NOT NULL
);

ALTER TABLE farwrite.history ALTER COLUMN number ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME farwrite.history_number_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE farwrite.key_queues (
    stream_id integer NOT NULL,
    key_queue text NOT NULL,
    lane_hash bigint NOT NULL,
    commands bigint NOT NULL,
    last_place bigint NOT NULL,
    due_at timestamp with time zone NOT NULL
);

CREATE TABLE farwrite.lanes (
    stream_id integer NOT NULL,
    lane integer NOT NULL,
    generation integer NOT NULL,
    epoch uuid NOT NULL,
    sequence bigint NOT NULL,
    sequence_at bigint,
    sequence_id uuid,
    parked bigint DEFAULT 0 NOT NULL,
    paused boolean DEFAULT false NOT NULL,
    suspects bigint[] DEFAULT '{}'::bigint[] NOT NULL,
    suspect_in_worker boolean DEFAULT false NOT NULL
)
WITH (fillfactor='90');

CREATE TABLE farwrite.ledger (
    command_id uuid NOT NULL,
    outcome farwrite.outcome NOT NULL,
    answer json,
    fingerprint uuid NOT NULL,
    stream_id integer NOT NULL,
    sequence bigint NOT NULL,
    settled_at timestamp with time zone DEFAULT now() NOT NULL,
    attempts integer DEFAULT 1 NOT NULL,
    published_at timestamp with time zone
)
PARTITION BY RANGE (command_id);

CREATE TABLE farwrite.ledger_derived (
    command_id uuid NOT NULL,
    outcome farwrite.outcome NOT NULL,
    answer json,
    fingerprint uuid NOT NULL,
    stream_id integer NOT NULL,
    sequence bigint NOT NULL,
    settled_at timestamp with time zone DEFAULT now() NOT NULL,
    attempts integer DEFAULT 1 NOT NULL,
    published_at timestamp with time zone
);

CREATE TABLE farwrite.ledger_horizon (
    only_row boolean DEFAULT true NOT NULL,
    known_from timestamp with time zone NOT NULL,
    CONSTRAINT ledger_horizon_only_row_check CHECK (only_row)
);

CREATE TABLE farwrite.migrations (
    version bigint NOT NULL,
    description text NOT NULL,
    installed_on timestamp with time zone DEFAULT now() NOT NULL,
    success boolean NOT NULL,
    checksum bytea NOT NULL,
    execution_time bigint NOT NULL
);

CREATE TABLE farwrite.open_tables (
    name text NOT NULL,
    relation text NOT NULL,
    partitioned boolean NOT NULL,
    key_columns text[] NOT NULL,
    omittable text[] NOT NULL,
    insertable text[],
    updatable text[],
    deletable boolean NOT NULL,
    readable text[],
    comparable text[] NOT NULL,
    key_match text NOT NULL,
    key_text text NOT NULL,
    opened_by text DEFAULT SESSION_USER NOT NULL,
    opened_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE farwrite.operations (
    operation_id integer NOT NULL,
    act text NOT NULL,
    stream_id integer,
    sequence bigint,
    command_id uuid,
    subject text,
    reason text,
    done_by text DEFAULT SESSION_USER NOT NULL,
    done_at timestamp with time zone DEFAULT now() NOT NULL
);

ALTER TABLE farwrite.operations ALTER COLUMN operation_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME farwrite.operations_operation_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE farwrite.owner (
    only_row boolean DEFAULT true NOT NULL,
    database_name text NOT NULL,
    epoch uuid NOT NULL,
    worker text NOT NULL,
    taken_at timestamp with time zone NOT NULL,
    released_at timestamp with time zone,
    flushed_lsn pg_lsn,
    pid integer,
    session_began timestamp with time zone,
    lease interval DEFAULT '00:00:05'::interval NOT NULL,
    identity text NOT NULL,
    CONSTRAINT owner_only_row_check CHECK (only_row)
);

CREATE TABLE farwrite.parked (
    stream_id integer NOT NULL,
    sequence bigint NOT NULL,
    command_id uuid NOT NULL,
    fingerprint uuid NOT NULL,
    name text NOT NULL,
    version integer NOT NULL,
    order_key text,
    key_queue text NOT NULL,
    lane_hash bigint NOT NULL,
    place bigint,
    due_at timestamp with time zone,
    reason text NOT NULL,
    error json,
    attempts integer NOT NULL,
    subject text NOT NULL,
    headers json NOT NULL,
    body bytea NOT NULL,
    published_at bigint NOT NULL,
    parked_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    lacks_since timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT parked_check CHECK (((place IS NULL) = (due_at IS NOT NULL)))
);

CREATE TABLE farwrite.pauses (
    name text,
    order_key text,
    reason text NOT NULL,
    paused_by text DEFAULT SESSION_USER NOT NULL,
    paused_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT pauses_check CHECK (((name IS NULL) <> (order_key IS NULL)))
);

CREATE TABLE farwrite.registry (
    only_row boolean DEFAULT true NOT NULL,
    changes bigint NOT NULL,
    CONSTRAINT registry_only_row_check CHECK (only_row)
);

CREATE UNLOGGED TABLE farwrite.since_crash (
    only_row boolean DEFAULT true NOT NULL,
    epoch uuid NOT NULL,
    CONSTRAINT since_crash_only_row_check CHECK (only_row)
);

CREATE TABLE farwrite.streams (
    stream_id integer NOT NULL,
    name text NOT NULL,
    created text NOT NULL,
    identity uuid NOT NULL,
    generation integer DEFAULT 0 NOT NULL,
    lanes integer DEFAULT 0 NOT NULL,
    hash_version integer DEFAULT 0 NOT NULL,
    low_water bigint DEFAULT 0 NOT NULL,
    low_water_at timestamp with time zone,
    high_water bigint DEFAULT 0 NOT NULL,
    high_water_at bigint,
    high_water_id uuid,
    refused text,
    refused_at timestamp with time zone,
    had_standby boolean DEFAULT false NOT NULL,
    trim_floor bigint
);

ALTER TABLE farwrite.streams ALTER COLUMN stream_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME farwrite.streams_stream_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE farwrite.unconfirmed (
    command_id uuid NOT NULL
);

ALTER TABLE ONLY farwrite.dead_letters
    ADD CONSTRAINT dead_letters_pkey PRIMARY KEY (stream_id, sequence);

ALTER TABLE ONLY farwrite.function_installs
    ADD CONSTRAINT function_installs_pkey PRIMARY KEY (install_id);

ALTER TABLE ONLY farwrite.functions
    ADD CONSTRAINT functions_name_version_key UNIQUE (name, version);

ALTER TABLE ONLY farwrite.functions
    ADD CONSTRAINT functions_pkey PRIMARY KEY (function_id);

ALTER TABLE ONLY farwrite.history
    ADD CONSTRAINT history_number_key UNIQUE (number);

ALTER TABLE ONLY farwrite.history
    ADD CONSTRAINT history_pkey PRIMARY KEY (epoch);

ALTER TABLE ONLY farwrite.key_queues
    ADD CONSTRAINT key_queues_pkey PRIMARY KEY (stream_id, key_queue);

ALTER TABLE ONLY farwrite.lanes
    ADD CONSTRAINT lanes_pkey PRIMARY KEY (stream_id, lane);

ALTER TABLE ONLY farwrite.ledger_derived
    ADD CONSTRAINT ledger_derived_pkey PRIMARY KEY (command_id);

ALTER TABLE ONLY farwrite.ledger_horizon
    ADD CONSTRAINT ledger_horizon_pkey PRIMARY KEY (only_row);

ALTER TABLE ONLY farwrite.ledger
    ADD CONSTRAINT ledger_pkey PRIMARY KEY (command_id);

ALTER TABLE ONLY farwrite.migrations
    ADD CONSTRAINT migrations_pkey PRIMARY KEY (version);

ALTER TABLE ONLY farwrite.open_tables
    ADD CONSTRAINT open_tables_pkey PRIMARY KEY (name);

ALTER TABLE ONLY farwrite.operations
    ADD CONSTRAINT operations_pkey PRIMARY KEY (operation_id);

ALTER TABLE ONLY farwrite.owner
    ADD CONSTRAINT owner_pkey PRIMARY KEY (only_row);

ALTER TABLE ONLY farwrite.parked
    ADD CONSTRAINT parked_pkey PRIMARY KEY (stream_id, sequence);

ALTER TABLE ONLY farwrite.pauses
    ADD CONSTRAINT pauses_name_order_key_key UNIQUE NULLS NOT DISTINCT (name, order_key);

ALTER TABLE ONLY farwrite.registry
    ADD CONSTRAINT registry_pkey PRIMARY KEY (only_row);

ALTER TABLE ONLY farwrite.since_crash
    ADD CONSTRAINT since_crash_pkey PRIMARY KEY (only_row);

ALTER TABLE ONLY farwrite.streams
    ADD CONSTRAINT streams_name_key UNIQUE (name);

ALTER TABLE ONLY farwrite.streams
    ADD CONSTRAINT streams_pkey PRIMARY KEY (stream_id);

ALTER TABLE ONLY farwrite.unconfirmed
    ADD CONSTRAINT unconfirmed_pkey PRIMARY KEY (command_id);

CREATE INDEX dead_letters_by_command ON farwrite.dead_letters USING btree (command_id);

CREATE INDEX history_ends ON farwrite.history USING btree (left_timeline, parent_lsn) WHERE (left_timeline IS NOT NULL);

CREATE INDEX history_positions ON farwrite.history USING btree (begin_lsn, taken_at);

CREATE INDEX key_queues_due ON farwrite.key_queues USING btree (stream_id, due_at);

CREATE INDEX operations_by_command ON farwrite.operations USING btree (command_id);

CREATE UNIQUE INDEX parked_by_command ON farwrite.parked USING btree (command_id, stream_id);

CREATE INDEX parked_expiring ON farwrite.parked USING btree (stream_id, sequence) WHERE ((headers)::text ~~* '%farwrite-expires-at%'::text);

CREATE UNIQUE INDEX parked_in_key_queue ON farwrite.parked USING btree (stream_id, key_queue, place);

CREATE INDEX parked_scheduled ON farwrite.parked USING btree (stream_id, due_at) WHERE (place IS NULL);

ALTER TABLE ONLY farwrite.lanes
    ADD CONSTRAINT lanes_stream_id_fkey FOREIGN KEY (stream_id) REFERENCES farwrite.streams(stream_id);

