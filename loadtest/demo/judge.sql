-- The demo's judge: what the file says and what the broker holds, beside what the worker made of
-- it. Each view lists faults, one a row, for people; a verdict holds when its view is empty.
--
-- Nothing here trusts the worker: the rows come from the file, the order from the broker.

CREATE SCHEMA judge;

-- The rows of the file, with the command that each was published as.
CREATE TABLE judge.file (
    line       integer PRIMARY KEY,
    command_id uuid NOT NULL UNIQUE,
    region     text NOT NULL,             -- where it was to be published
    aircraft   text NOT NULL,             -- its key
    day        date NOT NULL,
    carrier    text NOT NULL,
    flight     integer NOT NULL,
    origin     text NOT NULL,
    dest       text NOT NULL,
    distance   integer NOT NULL,
    departed   boolean NOT NULL
);

-- Every message of the stream, read from the broker.
CREATE TABLE judge.stream (
    sequence   bigint PRIMARY KEY,
    command_id uuid NOT NULL
);

-- The stream's order: a command's place is that of its first message.
CREATE TABLE judge.accepted (
    command_id uuid PRIMARY KEY,
    sequence   bigint NOT NULL
);

CREATE VIEW judge.ledger AS
SELECT command_id, outcome::text FROM farwrite.ledger
UNION ALL
SELECT command_id, outcome::text FROM farwrite.ledger_derived;

-- Every row applied once: settled as applied, and booked once, as the file has it, and nothing else.
CREATE VIEW judge.not_applied_once (fault) AS
SELECT format('line %s: its outcome is %s', f.line, coalesce(l.outcome, 'not known'))
FROM judge.file f LEFT JOIN judge.ledger l USING (command_id)
WHERE l.outcome IS DISTINCT FROM 'applied'
UNION ALL
SELECT format('line %s: booked %s times', f.line, count(b.command_id))
FROM judge.file f LEFT JOIN demo.flights b USING (command_id)
GROUP BY f.line HAVING count(b.command_id) <> 1
UNION ALL
SELECT format('line %s: booked as %s', f.line, b)
FROM judge.file f JOIN demo.flights b USING (command_id)
WHERE (f.line, f.region, f.aircraft, f.day, f.carrier, f.flight, f.origin, f.dest, f.distance, f.departed)
   IS DISTINCT FROM
      (b.line, b.region, b.aircraft, b.day, b.carrier, b.flight, b.origin, b.dest, b.distance, b.departed)
UNION ALL
SELECT format('command %s: settled, and in no line of the file', l.command_id)
FROM judge.ledger l LEFT JOIN judge.file f USING (command_id) WHERE f.line IS NULL
UNION ALL
SELECT format('command %s: booked, and in no line of the file', b.command_id)
FROM demo.flights b LEFT JOIN judge.file f USING (command_id) WHERE f.line IS NULL
UNION ALL
SELECT format('command %s: dead-lettered (%s)', d.command_id, d.reason)
FROM farwrite.dead_letters d;

-- Miles and legs per aircraft as in the file.
CREATE VIEW judge.wrong_miles_or_legs (fault) AS
SELECT format('%s: %s legs and %s miles, in the file %s and %s', aircraft,
              coalesce(a.legs, 0), coalesce(a.miles, 0), coalesce(f.legs, 0), coalesce(f.miles, 0))
FROM demo.aircraft a
FULL JOIN (SELECT aircraft, count(*) AS legs, sum(distance) AS miles
           FROM judge.file WHERE departed GROUP BY aircraft) f USING (aircraft)
WHERE a.legs IS DISTINCT FROM f.legs OR a.miles IS DISTINCT FROM f.miles;

-- Order kept per aircraft and origin: the file's order is the stream's, and the stream's order is
-- the order of application. (The legs that each flight was booked with were counted one by one, so
-- they tell the order in which the aircraft's commands were really applied.)
CREATE VIEW judge.out_of_order (fault) AS
SELECT format('%s from %s: line %s is in the stream behind line %s', aircraft, region, line, previous)
FROM (SELECT f.aircraft, f.region, f.line,
             lag(f.line) OVER (PARTITION BY f.aircraft, f.region ORDER BY s.sequence) AS previous
      FROM judge.file f JOIN judge.accepted s USING (command_id)) AS in_stream
WHERE previous > line
UNION ALL
SELECT format('%s: line %s was applied as leg %s, in the stream it is leg %s', aircraft, line, coalesce(legs::text, 'none'), expected)
FROM (SELECT f.aircraft, f.line, b.legs,
             count(*) FILTER (WHERE f.departed) OVER (PARTITION BY f.aircraft ORDER BY s.sequence) AS expected
      FROM judge.file f JOIN judge.accepted s USING (command_id) LEFT JOIN demo.flights b USING (command_id)) AS applied
WHERE legs IS DISTINCT FROM expected
UNION ALL
SELECT format('line %s: applied as place %s of the stream, its first is %s', b.line, b.sequence, s.sequence)
FROM demo.flights b LEFT JOIN judge.accepted s USING (command_id)
WHERE b.sequence IS DISTINCT FROM s.sequence;

-- Each aircraft where the stream's order left it.
CREATE VIEW judge.elsewhere (fault) AS
SELECT format('%s: at %s (place %s of the stream), by the stream''s order at %s (place %s)',
              aircraft, coalesce(a.at, 'no airport'), a.sequence, s.at, s.sequence)
FROM demo.aircraft a
FULL JOIN (SELECT DISTINCT ON (f.aircraft) f.aircraft, f.dest AS at, s.sequence
           FROM judge.file f JOIN judge.accepted s USING (command_id)
           WHERE f.departed ORDER BY f.aircraft, s.sequence DESC) s USING (aircraft)
WHERE a.at IS DISTINCT FROM s.at OR a.sequence IS DISTINCT FROM s.sequence;
