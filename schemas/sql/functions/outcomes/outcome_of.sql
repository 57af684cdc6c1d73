-- The same for one id.
CREATE OR REPLACE FUNCTION farwrite.outcome_of(p_id uuid)
RETURNS TABLE (status text, answer json, fingerprint uuid, attempts integer, stream text, sequence bigint,
               published_at timestamptz, settled_at timestamptz, reason text, due_at timestamptz)
LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
    SELECT o.status, o.answer, o.fingerprint, o.attempts, o.stream, o.sequence, o.published_at, o.settled_at, o.reason, o.due_at
    FROM farwrite.outcomes_of(ARRAY[p_id]) o
$$;
