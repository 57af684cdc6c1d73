-- Where the timeline p_timeline ended for this server, which is on p_now; null when the server does
-- not tell. It is in a file that only a superuser, or who may execute pg_read_file, reads.
CREATE OR REPLACE FUNCTION farwrite.timeline_end(p_timeline integer, p_now integer) RETURNS pg_lsn
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    v_file text;
BEGIN
    v_file := pg_read_file('pg_wal/' || upper(lpad(to_hex(p_now), 8, '0')) || '.history');
    RETURN (regexp_match(v_file, '^\s*' || p_timeline || '\s+([0-9A-F]+/[0-9A-F]+)', 'n'))[1]::pg_lsn;
EXCEPTION WHEN insufficient_privilege OR undefined_file THEN
    RETURN NULL;
END $$;
