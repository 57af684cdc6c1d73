-- A command that comes alone, which somebody waits for more often than for one of many: fence,
-- look-up, call and ledger are one statement. farwrite.apply sets up a dozen, half of its time for a
-- single command on a processor that slept: 1.4 ms with the commit, and this 0.95, as long as the
-- app's own statement takes without Farwrite.

-- Whether the ledger knows an id that carries a time. No sequential scan: see farwrite.look_up.
CREATE FUNCTION farwrite.is_known(p_id uuid) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog SET enable_seqscan = off AS $$
BEGIN
    RETURN EXISTS (SELECT FROM farwrite.ledger l WHERE l.command_id = p_id);
END $$;

-- Applies one function command whose id carries a time, which does not expire and has no context.
-- Nothing is changed, and the answer is null, where the ledger knows the id, the lane is not where it
-- is said to be, or something of it is parked or paused; which of them it was, farwrite.apply tells.
CREATE FUNCTION farwrite.apply_one(
    p_stream integer, p_lane integer, p_epoch uuid, p_from bigint, p_to bigint, p_to_at bigint,
    p_function integer, p_id uuid, p_fingerprint uuid, p_name text, p_version integer, p_key text,
    p_origin text, p_sequence bigint, p_at bigint, p_body text, OUT applied boolean, OUT answer text)
LANGUAGE plpgsql AS $$
BEGIN
    -- Each takes what comes from the one before it, so the fence comes first.
    WITH moved AS (
        UPDATE farwrite.lanes l
        SET sequence = p_to, sequence_at = p_to_at,
            anchor_sequence = p_sequence, anchor_at = p_at, anchor_id = p_id::text
        WHERE l.stream_id = p_stream AND l.lane = p_lane AND l.epoch = p_epoch AND l.sequence = p_from
          AND l.parked = 0 AND NOT l.paused AND NOT farwrite.is_known(p_id)
        RETURNING true
    ), ran AS (
        SELECT farwrite.call(p_function, p_body::jsonb, p_id, p_name, p_version, p_key, p_origin, p_sequence, p_at) AS answer
        FROM moved
    )
    INSERT INTO farwrite.ledger AS l (command_id, outcome, answer, fingerprint, stream_id, sequence, attempts, published_at)
    SELECT p_id, 'applied', ran.answer::json, p_fingerprint, p_stream, p_sequence, 1, to_timestamp(p_at / 1e9::float8)
    FROM ran
    RETURNING true, l.answer INTO applied, answer;
    -- As farwrite.run does after each command.
    RESET ROLE;
    RESET ALL;
    PERFORM pg_advisory_unlock_all();
END $$;
