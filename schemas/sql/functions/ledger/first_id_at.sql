-- The lowest UUIDv7 whose time is at or after p_time. Ids are compared as bytes, time first.
CREATE OR REPLACE FUNCTION farwrite.first_id_at(p_time timestamptz) RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog
RETURN (lpad(to_hex(floor(extract(epoch FROM p_time) * 1000)::bigint), 12, '0') || '70008000000000000000')::uuid;
