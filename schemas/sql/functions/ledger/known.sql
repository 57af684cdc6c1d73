-- What the ledger answers to each of these ids, by place (from 1); null where it knows nothing. Most
-- often it knows none of them.
CREATE OR REPLACE FUNCTION farwrite.known(p_ids uuid[], p_fingerprints uuid[], OUT outcomes text[], OUT answers text[])
LANGUAGE plpgsql STABLE SET search_path = pg_catalog AS $$
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
