//! What a program logs.

use std::io::{IsTerminal as _, stderr};

use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    layer::SubscriberExt as _,
    util::{SubscriberInitExt as _, TryInitError},
};

/// Logs what `filter` lets through to standard error, in colours where that is a terminal.
///
/// # Errors
/// When the process has a subscriber already.
pub fn start(filter: Targets) -> Result<(), TryInitError> {
    let ansi = stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer().with_writer(stderr).with_ansi(ansi);
    tracing_subscriber::registry().with(lines).with(filter).try_init()
}

/// The text is not a filter.
#[derive(Debug, thiserror::Error)]
#[error("a level (error, warn, info, debug, trace), or target=level joined by commas")]
pub struct FilterError;

/// Reads a filter such as `info` or `warn,farwrite_primary_worker=debug`.
///
/// # Errors
/// When a part is no level.
pub fn filter(text: &str) -> Result<Targets, FilterError> {
    text.parse().map(|log| without_urls(&log)).map_err(|_| FilterError)
}

/// Below info async-nats logs the URLs that it connects to, with their passwords.
fn without_urls(log: &Targets) -> Targets {
    let capped = |target: &str, level: LevelFilter| match target {
        target if target.starts_with("async_nats") => level.min(LevelFilter::INFO),
        _ => level,
    };
    let default = log.default_level().unwrap_or(LevelFilter::OFF);
    let kept = log.iter().map(|(target, level)| (target.to_owned(), capped(target, level)));
    let has_own = log.iter().any(|(target, _)| target == "async_nats");
    let own = (!has_own).then(|| ("async_nats".to_owned(), capped("async_nats", default)));
    kept.chain(own).collect::<Targets>().with_default(default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn async_nats_never_logs_its_urls() {
        use tracing_subscriber::filter::LevelFilter as Level;
        for text in ["trace", "async_nats=trace", "info,async_nats::connector=debug"] {
            let log = filter(text).unwrap();
            let target = "async_nats::connector";
            assert!(!log.would_enable(target, &tracing::Level::DEBUG), "{text}");
        }
        assert_eq!(filter("warn").unwrap().default_level(), Some(Level::WARN));
        let log = filter("warn").unwrap();
        assert!(!log.would_enable("async_nats", &tracing::Level::INFO));
    }
}
