//! The app of a run: its regions, its database, its one function, and the worker's subcommands for it.

use std::{process::Command, time::Duration};

use anyhow::Result;
use farwrite_devstack::Devstack;

use crate::kit::program;

pub(super) const REGIONS: [&str; 3] = ["ewr", "jfk", "lga"];
pub(super) const DATABASE: &str = "chaos";
/// How long anything may take that must happen.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// Each applied command leaves one row, in the order of its key. No constraint would keep a second
/// row out.
pub(super) const APP: &str = "
    CREATE TABLE counters (key text PRIMARY KEY, n bigint NOT NULL);
    CREATE TABLE effects (key text NOT NULL, n bigint NOT NULL, id uuid NOT NULL);
    CREATE INDEX ON effects (key, n DESC);
    CREATE TABLE noise (text text);
    CREATE FUNCTION put(body jsonb, meta farwrite.meta) RETURNS bigint LANGUAGE plpgsql AS $$
    DECLARE v_n bigint;
    BEGIN
        IF body ? 'sleep_ms' THEN
            PERFORM pg_sleep((body ->> 'sleep_ms')::float8 / 1000);
        END IF;
        INSERT INTO counters AS c VALUES (meta.key, 1)
        ON CONFLICT (key) DO UPDATE SET n = c.n + 1 RETURNING n INTO v_n;
        INSERT INTO effects VALUES (meta.key, v_n, meta.id);
        IF body ? 'refuse' THEN
            RAISE EXCEPTION 'refused by itself';
        ELSIF clock_timestamp() < to_timestamp((body ->> 'fail_until')::float8 / 1000) THEN
            -- So it is parked for certain, and never tried so often that it is dead-lettered.
            RAISE EXCEPTION 'not yet' USING ERRCODE = coalesce(body ->> 'code', '40001');
        END IF;
        RETURN v_n;
    END $$;
    SELECT farwrite.register('chaos.put', 'put(jsonb, farwrite.meta)');";

/// Errors that pass, one of each kind that a command can meet while its connection lives on: a
/// serialization failure, a lock that was not had, a timeout, a memory limit of the command's own
/// session, a full temporary file, a server of somebody else that is away, a missing file, an internal
/// error.
pub(super) const PASSING_ERRORS: [&str; 10] =
    ["40001", "55P03", "57014", "53200", "53400", "53100", "08001", "08006", "58P01", "XX000"];

/// A subcommand of the worker program that knows all servers.
pub(super) fn worker_command(stack: &Devstack, subcommand: &str) -> Result<Command> {
    let urls = REGIONS.map(|region| Ok(stack.server(region)?.url(DATABASE)));
    let urls = urls.into_iter().collect::<Result<Vec<_>>>()?.join(",");
    worker_command_over(subcommand, &urls, &stack.nats().url())
}

/// The same over links: the first region's, which lead to the primary and to the broker.
pub(super) fn worker_command_over_links(stack: &Devstack, subcommand: &str) -> Result<Command> {
    let url = stack.primary_url_from(REGIONS[0], DATABASE)?;
    worker_command_over(subcommand, &url, &stack.nats_url(REGIONS[0])?)
}

/// The same for one server alone.
pub(super) fn worker_command_of(stack: &Devstack, region: &str) -> Result<Command> {
    worker_command_over("run", &stack.server(region)?.url(DATABASE), &stack.nats().url())
}

fn worker_command_over(subcommand: &str, urls: &str, nats: &str) -> Result<Command> {
    let mut command = Command::new(program("farwrite")?);
    command.args(["worker", subcommand, "--database", DATABASE, "--database-url", urls]);
    command.args(["--nats-url", nats, "--stream-max-bytes", "268435456"]);
    command.args(["--required-standbys", &REGIONS.join(","), "--trim-min-age-s", "5"]);
    command.args(["--lease-ms", "1000", "--retry-pause-ms", "20"]);
    Ok(command)
}
