//! Whether the stream still keeps its contract, and how full it is, while the worker serves.
//!
//! Both are an operator's affair, and the worker goes on. It says what endangers accepted commands, or will soon
//! stop every write. The log says so once, `/ready` and the metrics as long as it is so.

use std::time::Duration;

use async_nats::jetstream::stream::{Info, Stream};
use farwrite_internal::Health;
use tracing::{error, info};

use crate::{config::Config, metrics, stream::find};

/// The share of its size at which a stream is said to be nearly full.
const NEARLY_FULL: f64 = 0.8;
/// How long JetStream may take.
const WITHIN: Duration = Duration::from_secs(5);
/// Who has the trouble, in the worker's health.
const WHO: &str = "the stream's settings";

/// Looks at one stream.
pub(crate) struct StreamWatch {
    stream: Stream,
    health: Health,
    /// What was said last.
    said: Option<String>,
}

impl StreamWatch {
    pub(crate) fn new(stream: Stream, health: Health) -> Self {
        Self { stream, health, said: None }
    }

    /// Looks once. JetStream being away is the reader's to tell.
    pub(crate) async fn tick(&mut self, config: &Config) {
        let asking = tokio::time::timeout(WITHIN, self.stream.get_info()).await;
        let Ok(Ok(info)) = asking else { return };
        metrics::stream_bytes(info.state.bytes, info.config.max_bytes);
        let broken = find::check_contract(&info, config).err().map(|error| error.to_string());
        let trouble = broken.or_else(|| nearly_full(&info));
        match &trouble {
            Some(why) => {
                self.health.trouble(WHO, why);
                // The share changes all the time.
                if self.said.is_none() {
                    error!(why, "the stream needs an operator");
                }
            }
            None if self.said.is_some() => {
                self.health.over(WHO);
                info!("the stream is as it must be again");
            }
            None => {}
        }
        self.said = trouble;
    }
}

/// What to do about a stream that is nearly full; `None` for one that is not.
fn nearly_full(info: &Info) -> Option<String> {
    let share = |used: u64, most: i64| {
        u64::try_from(most).ok().filter(|most| *most > 0).map(|most| used as f64 / most as f64)
    };
    let bytes = share(info.state.bytes, info.config.max_bytes);
    let messages = share(info.state.messages, info.config.max_messages);
    let fullest = bytes.into_iter().chain(messages).fold(0.0, f64::max);
    (fullest >= NEARLY_FULL).then(|| {
        format!(
            "the stream is {:.0} % full, and refuses every write when it is full: let it be trimmed (--required-standbys), or raise its limit (farwrite worker migrate --stream-max-bytes)",
            fullest * 100.0
        )
    })
}
