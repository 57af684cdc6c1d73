//! The watcher through a region's watcher program.

mod config;
mod source;

pub use config::NatsConfig;
pub(crate) use source::RegionSource;
