-- Whether an SQLSTATE is the command's own fault, wherever it was raised: it is rejected. The worker's verdict
-- table says the same, and a test compares the two. Classes: PostgreSQL's documentation, appendix A; a class
-- from 5 to 9 or I to Z that is not PostgreSQL's was chosen by the app, to refuse in its own words.
-- A check (23514) without a name is perhaps a partition that is missing. A sequence that is used up (2200H) is no
-- command's fault. Where such a command runs alone, more is known of it.
-- Its names are bound when it is made, so it needs no search_path, and can be inlined.
CREATE OR REPLACE FUNCTION farwrite.is_own_fault(p_state text, p_constraint text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN left(p_state, 2) IN ('20', '21', '22', '23', '27', '44') AND p_state <> '2200H' AND (p_state <> '23514' OR p_constraint <> '')
    OR p_state IN ('P0001', 'P0002', 'P0003')
    OR (left(p_state, 1) ~ '[5-9I-Z]' AND left(p_state, 2) NOT IN ('53', '54', '55', '57', '58', '72', 'P0', 'XX'));
