-- The benchmark's app: one table, and one upsert that everybody who is compared runs.
CREATE SCHEMA bench;

CREATE TABLE bench.items (
    key   text PRIMARY KEY,
    n     bigint NOT NULL,                      -- how often it was put
    value text NOT NULL CHECK (value <> '')     -- an empty one is refused
);

CREATE FUNCTION bench.put(body jsonb) RETURNS bigint LANGUAGE sql AS $$
    INSERT INTO bench.items AS i VALUES (body->>'key', 1, body->>'value')
    ON CONFLICT (key) DO UPDATE SET n = i.n + 1, value = excluded.value
    RETURNING n
$$;

-- What a consumer of messages needs to know a message again.
CREATE TABLE bench.seen (id uuid PRIMARY KEY);

SELECT farwrite.register('item.put', 'bench.put(jsonb)');

-- The same under many names.
DO $$
BEGIN
    FOR number IN 1..20 LOOP
        EXECUTE format('CREATE FUNCTION bench.put_%s(body jsonb) RETURNS bigint LANGUAGE sql AS %L', number,
            'INSERT INTO bench.items AS i VALUES (body->>''key'', 1, body->>''value'')
             ON CONFLICT (key) DO UPDATE SET n = i.n + 1, value = excluded.value RETURNING n');
        PERFORM farwrite.register('item.put_' || number, format('bench.put_%s(jsonb)', number)::regprocedure);
    END LOOP;
END $$;
