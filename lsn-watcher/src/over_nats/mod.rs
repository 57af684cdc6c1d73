//! The watcher through a region's watcher program.

mod config;
mod source;
mod speaker;

pub use config::NatsConfig;
pub(crate) use source::RegionSource;
