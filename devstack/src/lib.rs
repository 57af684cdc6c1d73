//! Real servers on this machine, for tests, the demo and benchmarks.
//!
//! A [`Devstack`] has one NATS server with JetStream on disk, or a cluster of three. It has one
//! PostgreSQL primary in the first region and one streaming replica in each other region. All
//! traffic that would cross a WAN goes through a [`WanLink`]: a proxy whose delay can be set, and
//! which can be cut and healed. Servers listen on Unix sockets and ephemeral loopback ports, so
//! stacks run side by side. A stack leaves no server and no folder behind, also when the process
//! that owns it is killed.
//!
//! Failover is done step by step: a replica is [promoted](Devstack::promote), apps are
//! [led to it](Devstack::set_primary), other replicas [follow it](Devstack::follow), and the old
//! primary is [rebuilt](Devstack::rebuild) as its replica.
//!
//! In a [cluster](DevstackBuilder::nats_nodes) each node can be killed, suspended and started by
//! itself, the [leader of a stream](Devstack::stream_leader) too.
//!
//! Not here: links between a cluster's nodes that can be cut.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use std::time::Duration;
//! use farwrite_devstack::Devstack;
//!
//! let stack = Devstack::builder().regions(["ewr", "jfk"]).rtt(Duration::from_millis(30)).start().await?;
//! println!("{} {}", stack.primary().url("postgres"), stack.nats_url("jfk")?);
//! stack.replication_link("jfk")?.cut();
//! # Ok(())
//! # }
//! ```

mod account;
mod builder;
mod cluster;
mod failover;
mod link;
mod link_timer;
mod nats;
mod postgres;
mod program;
mod proxies;
mod reaper;
mod region;
mod stack;
mod tools;
mod topology;

pub use builder::DevstackBuilder;
pub use link::WanLink;
pub use nats::NatsServer;
pub use postgres::Postgres;
pub use program::Program;
pub use stack::Devstack;
pub use tools::{Tools, fetch};
