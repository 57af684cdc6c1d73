-- The ledger's look-up and its writing are planned once a session. PostgreSQL takes the size of an
-- array into its estimate and finds each time that a plan of its own is better; for a command that
-- comes alone that is a fifth of its whole transaction, and the plan is the same.
ALTER FUNCTION farwrite.look_up(uuid[]) SET plan_cache_mode = force_generic_plan;
ALTER FUNCTION farwrite.record(integer, uuid[], uuid[], bigint[], bigint[], integer[], text[], text[])
    SET plan_cache_mode = force_generic_plan;

-- A page is pruned as soon as less of it is free than the fill factor leaves, and what prunes the
-- versions that a query on a replica may still see holds up the replay there. So a page of lanes is
-- used up first: it is pruned every 38 batches of 8 lanes, and not every 18.
ALTER TABLE farwrite.lanes SET (fillfactor = 90);
