//! Opening the reads of a producer. Servers are connected when they are first needed: an app whose
//! replica is away can still write.

use async_nats::Client;
use farwrite_lsn_watcher::{EmbeddedConfig, NatsConfig, Watcher};
use farwrite_schemas::{Origin, Subjects};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::{
    build_error::BuildError,
    reads::{
        role::ServerRole,
        servers::{Fallback, Here, ReadServers},
    },
    reads_from::{ReadsFrom, ReadsSource, ReplicaReads, WatchedBy},
};

impl ReadsFrom {
    /// Checks the URLs.
    pub(crate) fn validate(&self) -> Result<(), BuildError> {
        match &self.0 {
            ReadsSource::Nowhere => {}
            ReadsSource::Primary { url } => drop(parse("primary's", url)?),
            ReadsSource::Replica(ReplicaReads { url, primary, .. }) => {
                url.as_ref().map(|url| parse("replica's", url)).transpose()?;
                primary.as_ref().map(|url| parse("primary's", url)).transpose()?;
            }
        }
        Ok(())
    }

    /// Makes the pools and the watcher.
    pub(crate) fn open(
        self,
        pool: PgPoolOptions,
        client: &Client,
        subjects: &Subjects,
        origin: &Origin,
    ) -> Result<ReadServers, BuildError> {
        let ReplicaReads { url, watched, primary } = match self.0 {
            ReadsSource::Nowhere => return Ok(ReadServers::Nowhere),
            ReadsSource::Primary { url } => {
                let server = Some((pool, parse("primary's", &url)?));
                let watcher = Watcher::embedded(EmbeddedConfig::new(url))?;
                let here = Here::new(watcher, server, ServerRole::Primary);
                return Ok(ReadServers::Somewhere { here, fallback: None });
            }
            ReadsSource::Replica(replica) => replica,
        };
        let fallback = match primary {
            Some(url) => {
                let options = parse("primary's", &url)?;
                Some(Fallback::new(url, pool.clone(), options))
            }
            None => None,
        };
        let server = match &url {
            Some(url) => Some((pool, parse("replica's", url)?)),
            None => None,
        };
        let watcher = match (watched, url) {
            (WatchedBy::Watcher(watcher), _) => watcher,
            (WatchedBy::Connection, Some(url)) => Watcher::embedded(EmbeddedConfig::new(url))?,
            // Without a URL there is nothing to connect to.
            (WatchedBy::Connection, None) | (WatchedBy::Nats, _) => {
                let config = NatsConfig::default();
                Watcher::over_nats(client.clone(), subjects, origin, config)?
            }
        };
        let here = Here::new(watcher, server, ServerRole::Replica);
        Ok(ReadServers::Somewhere { here, fallback })
    }
}

fn parse(what: &'static str, url: &str) -> Result<PgConnectOptions, BuildError> {
    url.parse().map_err(|cause| BuildError::Url { what, cause })
}
