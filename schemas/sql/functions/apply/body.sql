-- The body of a command of a batch: p_starts says where each begins, from 1, and after the last where it
-- ends.
CREATE OR REPLACE FUNCTION farwrite.body(p_bodies bytea, p_starts integer[], p_place integer) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE
RETURN convert_from(substring(p_bodies, p_starts[p_place], p_starts[p_place + 1] - p_starts[p_place]), 'UTF8')::jsonb;
