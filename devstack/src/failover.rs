//! Another server becomes the primary, and replicas follow another one.
//!
//! The steps are apart, as tests want them: a promotion leaves the old primary as it is, so that
//! both write histories of their own; where apps are led to and whom replicas follow are two more
//! steps.

use std::{
    fs::File,
    io::Write,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use sqlx::{Connection, PgConnection};

use crate::{link::LinkTarget, postgres::Postgres, region::Home, stack::Devstack};

/// How long a server may take to do as it was told.
const WITHIN: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(5);

impl Devstack {
    /// Promotes the replica of a region: it replays what it has received, begins a timeline of its
    /// own and takes writes, also when its replay was held. Nobody else is told: the old primary
    /// goes on, replicas follow whom they followed (those of this one now get its timeline), and
    /// apps are led to the old primary until [`set_primary`](Self::set_primary).
    ///
    /// # Errors
    /// When there is no such region, or its server is not running, is no replica, or is not
    /// promoted within a minute.
    pub async fn promote(&self, region: &str) -> Result<()> {
        let server = self.server(region)?;
        let mut connection = server.connect("postgres").await?;
        let promoted: bool = sqlx::query_scalar("SELECT pg_promote(true, 60)")
            .fetch_one(&mut connection)
            .await
            .with_context(|| format!("promoting the replica of {region}"))?;
        connection.close().await?;
        ensure!(promoted, "the replica of {region} is not promoted within a minute");
        until("the end of recovery", async || Ok(!server.is_in_recovery().await?)).await
    }

    /// Leads the links called "primary" of all regions to the server of this one, whichever role it
    /// has; their connections break, their addresses stay, and one that is cut stays cut. From now
    /// on it is [`primary`](Self::primary). The region's own link and that of the region before
    /// change their delays with each other: what was near is far.
    ///
    /// # Errors
    /// When there is no such region.
    pub fn set_primary(&self, region: &str) -> Result<()> {
        let index = self.index(region)?;
        let before = self.primary.swap(index, Ordering::Relaxed);
        for home in &self.homes {
            home.links.primary.set_target(LinkTarget::Unix(self.homes[index].server.socket()));
        }
        let (near, far) = (&self.homes[index].links.primary, &self.homes[before].links.primary);
        let rtt = near.rtt();
        near.set_rtt(far.rtt());
        far.set_rtt(rtt);
        Ok(())
    }

    /// Makes the replica of a region, which may be stopped, stream from the server of the region
    /// `upstream`: a promoted one, or another replica. What it streamed from before sends it
    /// nothing any more when this returns. That it has begun to stream is not waited for: the link,
    /// which is now [`replication_link`](Self::replication_link), may be cut, and PostgreSQL
    /// refuses a replica that has replayed past the point where the other's history begins
    /// ([`rebuild`](Self::rebuild) helps).
    ///
    /// # Errors
    /// When there is no such region, its server is no replica, that of `upstream` is not running,
    /// or replicas would follow each other in a circle.
    pub async fn follow(&self, region: &str, upstream: &str) -> Result<()> {
        let (index, above) = (self.index(region)?, self.index(upstream)?);
        let Home { server, links, upstream: current } = &self.homes[index];
        ensure!(
            is_replica(server).await?,
            "the server of {region} is no replica and can only be rebuilt"
        );
        self.check_no_circle(index, above).await?;
        make_slot(&self.homes[above].server, server.slot()).await?;
        let port = links.replication[above].addr().port();
        let conninfo = format!("host=127.0.0.1 port={port} user=postgres sslmode=disable");
        if !is_running(server)? {
            configure_stopped(server, &conninfo)?;
            current.store(above, Ordering::Relaxed);
            return Ok(());
        }
        configure_running(server, &conninfo).await?;
        let before = current.swap(above, Ordering::Relaxed);
        if before != above {
            // A receiver whose replay is held is not told until replay goes on.
            links.replication[before].drop_connections();
        }
        let sql = "SELECT count(*) = 0 FROM pg_stat_wal_receiver WHERE sender_port <> $1";
        let mut connection = server.connect("postgres").await?;
        until("the end of the stream from the server before", async || {
            let query = sqlx::query_scalar(sql).bind(i32::from(port));
            Ok(query.fetch_one(&mut connection).await?)
        })
        .await?;
        Ok(connection.close().await?)
    }

    /// Removes what the server of a region has, and makes it a replica of the server of the region
    /// `upstream` with a fresh copy: a replica whose history was lost, or an old primary. A server
    /// that runs is stopped first. Replicas of this one are left behind, for a copy has neither
    /// their slots nor older log: let them [`follow`](Self::follow) another first.
    ///
    /// # Errors
    /// When there is no such region, the server of `upstream` is not running, replicas would follow
    /// each other in a circle, or the link between the two is cut: nothing is removed then. When
    /// copying fails, or the copy does not start.
    pub async fn rebuild(&self, region: &str, upstream: &str) -> Result<()> {
        let (index, above) = (self.index(region)?, self.index(upstream)?);
        let Home { server, links, upstream: current } = &self.homes[index];
        let link = &links.replication[above];
        ensure!(
            !link.is_cut(),
            "the link from {region} to {upstream} is cut: nothing can be copied"
        );
        self.check_no_circle(index, above).await?;
        let mut there = self.homes[above].server.connect("postgres").await?;
        if is_running(server)? {
            if let Some(program) = server.program() {
                program.signal(Signal::CONT)?;
            }
            server.stop_immediate().await?;
        }
        link.drop_connections();
        drop_slot(&mut there, server.slot()).await?;
        there.close().await?;
        let data = server.data().to_path_buf();
        tokio::task::spawn_blocking(move || match std::fs::remove_dir_all(&data) {
            // A copy that failed has removed its folder itself.
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", data.display()))
            }
            _ => Ok(()),
        })
        .await??;
        current.store(above, Ordering::Relaxed);
        server.copy(link.addr().port()).await?;
        server.start().await
    }

    /// Whether the server with that index may follow the other: nobody could write to a circle.
    async fn check_no_circle(&self, index: usize, mut above: usize) -> Result<()> {
        for _ in &self.homes {
            if above == index {
                bail!("replicas would follow each other in a circle: promote one first");
            }
            let Home { server, upstream, .. } = &self.homes[above];
            if !is_replica(server).await? {
                break;
            }
            above = upstream.load(Ordering::Relaxed);
        }
        Ok(())
    }
}

fn is_running(server: &Postgres) -> Result<bool> {
    server.program().map_or(Ok(false), |program| Ok(program.status()?.is_none()))
}

async fn is_replica(server: &Postgres) -> Result<bool> {
    if is_running(server)? {
        return server.is_in_recovery().await;
    }
    Ok(server.data().join("standby.signal").exists())
}

async fn configure_running(server: &Postgres, conninfo: &str) -> Result<()> {
    // One by one: a server's setting cannot be changed in a transaction.
    server
        .execute("postgres", &format!("ALTER SYSTEM SET primary_conninfo = '{conninfo}'"))
        .await?;
    server
        .execute("postgres", &format!("ALTER SYSTEM SET primary_slot_name = '{}'", server.slot()))
        .await?;
    server.execute("postgres", "SELECT pg_reload_conf()").await?;
    // A session that begins with it is one that began after everybody else was told.
    until("the new configuration", async || {
        let mut connection = server.connect("postgres").await?;
        let sql = "SELECT current_setting('primary_conninfo')";
        let read: String = sqlx::query_scalar(sql).fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok(read == conninfo)
    })
    .await
}

/// The last line of the file that names a setting wins, here as for `pg_basebackup`.
fn configure_stopped(server: &Postgres, conninfo: &str) -> Result<()> {
    let path = server.data().join("postgresql.auto.conf");
    let slot = server.slot();
    let lines = format!("primary_conninfo = '{conninfo}'\nprimary_slot_name = '{slot}'\n");
    let written = File::options()
        .append(true)
        .open(&path)
        .and_then(|mut file| file.write_all(lines.as_bytes()));
    written.with_context(|| format!("writing {}", path.display()))
}

/// Makes a slot, which keeps the log from now on, where there is none of that name.
async fn make_slot(server: &Postgres, slot: &str) -> Result<()> {
    let sql = format!(
        "SELECT pg_create_physical_replication_slot('{slot}', true)
         WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '{slot}')"
    );
    server.execute("postgres", &sql).await
}

/// Drops a slot where there is one, once its user is gone.
async fn drop_slot(connection: &mut PgConnection, slot: &str) -> Result<()> {
    until("the end of a slot's use", async || {
        let sql = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
                   WHERE slot_name = $1 AND NOT active";
        sqlx::query(sql).bind(slot).execute(&mut *connection).await?;
        let sql = "SELECT count(*) = 0 FROM pg_replication_slots WHERE slot_name = $1";
        Ok(sqlx::query_scalar(sql).bind(slot).fetch_one(&mut *connection).await?)
    })
    .await
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !is_so().await? {
        ensure!(began.elapsed() < WITHIN, "{what} did not come within {} s", WITHIN.as_secs());
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}
