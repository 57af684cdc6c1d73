-- Whether an id carries a time and so belongs into the partitioned ledger: a UUIDv7. Not STRICT: a
-- function that is can only be inlined where its body is, and AND is not.
CREATE OR REPLACE FUNCTION farwrite.is_dated(p_id uuid) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN get_byte(uuid_send(p_id), 6) >> 4 = 7 AND get_byte(uuid_send(p_id), 8) >> 6 = 2;
