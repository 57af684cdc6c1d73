-- The time that a UUIDv7 carries; null for every other id, which belongs into ledger_derived.
CREATE OR REPLACE FUNCTION farwrite.id_time(p_id uuid) RETURNS timestamptz
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog
RETURN CASE
    WHEN substr(p_id::text, 15, 1) = '7' AND substr(p_id::text, 20, 1) IN ('8', '9', 'a', 'b')
    THEN to_timestamp(('x' || lpad(replace(left(p_id::text, 13), '-', ''), 16, '0'))::bit(64)::bigint / 1000.0)
END;
