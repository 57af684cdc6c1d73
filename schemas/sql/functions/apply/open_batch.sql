-- Opens a staged batch: the fence, and everything that is known about its commands.
--   outcomes, answers  what the ledger knows, by place in p_ids (from 1)
--   parked_*           those of the ids that are parked, with their sequences, and how many stand
--                      before them in their key queues (counted up to 4096)
--   held_*             those of the key queues that something waits in, and how much
--   paused_*           all names and keys that are paused
CREATE OR REPLACE FUNCTION farwrite.open_batch(
    p_stream integer, p_lane integer, p_epoch uuid, p_from bigint, p_to bigint, p_to_at bigint,
    p_to_id uuid, p_ids uuid[], p_fingerprints uuid[], p_key_queues text[],
    OUT xid text, OUT now_ns bigint, OUT outcomes text[], OUT answers text[],
    OUT parked bigint, OUT parked_ids uuid[], OUT parked_fingerprints uuid[], OUT parked_sequences bigint[],
    OUT parked_ahead bigint[], OUT held_key_queues text[], OUT held_commands bigint[], OUT paused_names text[], OUT paused_keys text[])
LANGUAGE plpgsql SET search_path = pg_catalog SET enable_seqscan = off AS $$
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
