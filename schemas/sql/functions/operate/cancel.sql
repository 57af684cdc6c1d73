-- Cancels a command that has not ended: it is recorded as rejected (code cancelled), whether it is
-- parked, still in the stream, or not published yet. Answers null, or how it had ended before, as far as
-- that is told.
CREATE OR REPLACE FUNCTION farwrite.cancel(p_id uuid, p_reason text) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
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
