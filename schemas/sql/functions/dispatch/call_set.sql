-- Calls a set-form function with a run of commands: replaced together with farwrite.call.
CREATE OR REPLACE FUNCTION farwrite.call_set(p_function integer, p_bodies jsonb[], p_metas farwrite.meta[]) RETURNS text[]
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'no function is registered under number %', p_function USING ERRCODE = 'FW003', SCHEMA = 'farwrite';
END $$;
