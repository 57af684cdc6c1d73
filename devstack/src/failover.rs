//! What operators do when a primary is lost: promote, follow another, make anew.
//!
//! Servers keep their region and their place; only roles and links change. A server that was not
//! stopped goes on by itself: two primaries at once is what some tests want.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::{Devstack, link::Target, postgres};

/// How long a promotion may take.
const PROMOTED_WITHIN: Duration = Duration::from_secs(60);

impl Devstack {
    /// Makes the replica of a region a primary. The server that was one is left as it is, and
    /// [`primary_url_from`](Self::primary_url_from) leads to it until [`lead`](Self::lead).
    ///
    /// # Errors
    /// When there is no such replica, or it is not promoted within a minute.
    pub async fn promote(&self, region: &str) -> Result<()> {
        let server = self.replica(region)?;
        server.execute("postgres", "SELECT pg_promote(false)").await?;
        let mut connection = server.connect("postgres").await?;
        let began = Instant::now();
        while sqlx::query_scalar("SELECT pg_is_in_recovery()").fetch_one(&mut connection).await? {
            if began.elapsed() > PROMOTED_WITHIN {
                bail!("the replica in {region} is not promoted within {PROMOTED_WITHIN:?}");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Lets every region's way to the primary lead to the server of `region`. Connections break.
    ///
    /// # Errors
    /// When there is no such region.
    pub fn lead(&self, region: &str) -> Result<()> {
        let socket = self.server(region)?.socket();
        for from in self.regions() {
            self.far(from)?.links.primary.lead_to(Target::Unix(socket.clone()));
        }
        Ok(())
    }

    /// Lets the replica of a region stream from the server of another one, a replica or a primary,
    /// which must run. Its link, delay and cuts stay the same.
    ///
    /// # Errors
    /// When there is no such region, or the other server does not let it.
    pub async fn follow(&self, region: &str, upstream: &str) -> Result<()> {
        let other = self.server(upstream)?;
        other.keep_for(region).await?;
        self.far(region)?.links.replication.lead_to(Target::Unix(other.socket()));
        Ok(())
    }

    /// Makes the server of a region anew, as a replica of another region's: what it held is gone.
    /// The old primary comes back so, too.
    ///
    /// # Errors
    /// When there is no such region, or the other server cannot be copied.
    pub async fn rebuild(&self, region: &str, upstream: &str) -> Result<()> {
        self.follow(region, upstream).await?;
        let port = self.replication_link(region)?.addr().port();
        self.server(region)?.rebuild(&postgres::slot(region), port).await
    }
}
