-- How the owner fares:
--   none      no worker has ever taken over
--   released  it ended in good order
--   gone      its session is no more: the process died, its connection broke, or the server is
--             another one than it had taken over
--   silent    its session is there and says nothing: the process is stopped or cut off
--   alive     everything else, also where the server does not tell (another role's sessions)
CREATE OR REPLACE FUNCTION farwrite.owner_state(
    OUT state text, OUT epoch uuid, OUT worker text, OUT silent_seconds double precision)
LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
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
