-- Counts anew what the lanes' rows say about parked and paused commands.
CREATE OR REPLACE FUNCTION farwrite.count_parked() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
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
