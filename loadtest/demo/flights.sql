-- The demo's two commands, as functions of the database. Neither asks whether it has been here
-- before, and neither locks anything for the sake of order: both is Farwrite's part.

CREATE FUNCTION demo.book(flight jsonb, meta farwrite.meta, departed boolean, legs integer) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO demo.flights
    VALUES (meta.id, (flight->>'line')::integer, meta.origin, meta.key,
            (flight->>'day')::date, flight->>'carrier', (flight->>'flight')::integer,
            flight->>'origin', flight->>'dest', (flight->>'distance')::integer,
            departed, legs, meta.sequence)
$$;

-- Books the flight and moves the aircraft; answers what the aircraft has flown by now.
CREATE FUNCTION demo.departed(flight jsonb, meta farwrite.meta) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    flown demo.aircraft;
BEGIN
    INSERT INTO demo.aircraft AS a
    VALUES (meta.key, 1, (flight->>'distance')::integer, flight->>'dest', meta.sequence)
    ON CONFLICT (aircraft) DO UPDATE
    SET legs = a.legs + 1, miles = a.miles + excluded.miles, at = excluded.at, sequence = excluded.sequence
    RETURNING a.* INTO flown;
    PERFORM demo.book(flight, meta, true, flown.legs);
    RETURN jsonb_build_object('legs', flown.legs, 'miles', flown.miles);
END $$;

-- Books the cancelled flight and moves nothing; answers the same.
CREATE FUNCTION demo.cancelled(flight jsonb, meta farwrite.meta) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    flown demo.aircraft;
BEGIN
    SELECT * INTO flown FROM demo.aircraft WHERE aircraft = meta.key;
    PERFORM demo.book(flight, meta, false, coalesce(flown.legs, 0));
    RETURN jsonb_build_object('legs', coalesce(flown.legs, 0), 'miles', coalesce(flown.miles, 0));
END $$;

SELECT farwrite.register('flight.departed', 'demo.departed(jsonb, farwrite.meta)');
SELECT farwrite.register('flight.cancelled', 'demo.cancelled(jsonb, farwrite.meta)');
