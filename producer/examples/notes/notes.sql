-- The example's table, and its command: a function that the worker calls with the body.
CREATE TABLE notes (
    id      uuid PRIMARY KEY,
    author  text NOT NULL,
    text    text NOT NULL CHECK (text <> ''),
    written timestamptz NOT NULL DEFAULT now()
);

CREATE FUNCTION add_note(body jsonb, meta farwrite.meta) RETURNS uuid LANGUAGE sql AS $$
    INSERT INTO notes (id, author, text) VALUES (meta.id, meta.key, body->>'text') RETURNING id
$$;

SELECT farwrite.register('note.add', 'add_note(jsonb, farwrite.meta)');
