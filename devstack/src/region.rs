//! What one region has: a PostgreSQL server, and links to NATS and to the servers of all regions.

use std::{path::PathBuf, sync::atomic::AtomicUsize, time::Duration};

use anyhow::Result;

use crate::{
    link::{LinkTarget, WanLink},
    nats::NatsServer,
    postgres::Postgres,
    proxies::Proxies,
};

/// The links that one region has.
pub(crate) struct RegionLinks {
    pub(crate) nats: WanLink,
    /// To the server of each region, in the regions' order.
    pub(crate) replication: Vec<WanLink>,
    pub(crate) primary: WanLink,
}

impl RegionLinks {
    pub(crate) fn open(proxies: &Proxies, nats: &NatsServer, sockets: &[PathBuf]) -> Result<Self> {
        let handle = proxies.handle()?;
        let open = |socket: &PathBuf| WanLink::open(handle, LinkTarget::Unix(socket.clone()));
        Ok(Self {
            nats: WanLink::open(handle, LinkTarget::Tcp(nats.addr()))?,
            replication: sockets.iter().map(open).collect::<Result<_>>()?,
            primary: open(&sockets[0])?,
        })
    }

    /// Of the region with that index.
    pub(crate) fn set_rtt(&self, index: usize, rtt: Duration) {
        let others = self.replication.iter().enumerate().filter(|(other, _)| *other != index);
        others.for_each(|(_, link)| link.set_rtt(rtt));
        if index != 0 {
            self.nats.set_rtt(rtt);
            self.primary.set_rtt(rtt);
        }
    }
}

/// What one region has.
pub(crate) struct Home {
    pub(crate) server: Postgres,
    pub(crate) links: RegionLinks,
    /// The index of the region whose server its own follows, or followed last.
    pub(crate) upstream: AtomicUsize,
}
