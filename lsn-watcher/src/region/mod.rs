//! One watcher for a region: it polls the replica, tells the region's apps, and answers other regions.

mod config;
mod interest;
mod service;
mod state;
mod watch;

pub use config::{RegionConfig, RegionError};
pub use watch::watch_region;
