-- The tables of the demo's app. It is an ordinary app: it knows nothing of Farwrite, and nothing
-- here (no unique command id, no unique line) would keep a command's second effect from being seen.

CREATE SCHEMA demo;

-- Every departure that was booked, flown or cancelled.
CREATE TABLE demo.flights (
    command_id uuid NOT NULL,             -- the command that booked it
    line       integer NOT NULL,          -- where it is in the file; the header is line 1
    region     text NOT NULL,             -- where the command was published
    aircraft   text NOT NULL,             -- tail number, or flight number where there is none
    day        date NOT NULL,
    carrier    text NOT NULL,
    flight     integer NOT NULL,
    origin     text NOT NULL,             -- airport
    dest       text NOT NULL,             -- airport
    distance   integer NOT NULL,          -- miles
    departed   boolean NOT NULL,          -- false: it was cancelled
    legs       integer NOT NULL,          -- legs that the aircraft had flown then, with this one
    sequence   bigint NOT NULL            -- the command's place in the stream
);
CREATE INDEX flights_by_command ON demo.flights (command_id);

-- Every aircraft that has flown, and where it is now.
CREATE TABLE demo.aircraft (
    aircraft   text PRIMARY KEY,
    legs       integer NOT NULL,
    miles      bigint NOT NULL,
    at         text NOT NULL,             -- airport
    sequence   bigint NOT NULL            -- the place in the stream of what moved it there
) WITH (fillfactor = 70);
