-- Writes outcomes into the ledger. An entry without an outcome is passed over. p_attempts may be
-- empty: then each took one. Ids that carry no time are few: they are looked for only where something
-- was passed over. The outcome that nearly all have is not looked up by its name for each of them.
-- p_unconfirmed, empty where nothing is: whether an outcome is not told before every required standby has
-- it. To be expired is told at once: the time does not come back.
CREATE OR REPLACE FUNCTION farwrite.record(
    p_stream integer, p_ids uuid[], p_fingerprints uuid[], p_sequences bigint[], p_at bigint[],
    p_attempts integer[], p_outcomes text[], p_answers text[], p_unconfirmed boolean[] DEFAULT '{}') RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog SET plan_cache_mode = force_generic_plan AS $$
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
