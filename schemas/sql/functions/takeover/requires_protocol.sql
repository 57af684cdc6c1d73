-- The lowest protocol of workers that may run on this schema. A worker that speaks a lower one
-- refuses to start. It is raised together with a change that an older worker cannot live with.
CREATE OR REPLACE FUNCTION farwrite.requires_protocol() RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 1;
