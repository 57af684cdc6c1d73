//! A stream that a baseline reads, and what its messages say.

use anyhow::{Context, Result};
use async_nats::jetstream::{self, Message, stream};
use farwrite_devstack::Devstack;

/// Makes a stream of that name, which is its subject, too.
pub(super) async fn make(
    stack: &Devstack,
    name: &str,
) -> Result<(jetstream::Context, stream::Stream)> {
    let context = jetstream::new(async_nats::connect(stack.nats().url()).await?);
    let config = stream::Config {
        name: name.to_owned(),
        subjects: vec![name.to_owned()],
        allow_atomic_publish: true,
        ..Default::default()
    };
    let stream = context.create_stream(config).await?;
    Ok((context, stream))
}

/// A header that a message must have.
pub(super) fn header<'m>(message: &'m Message, name: &str) -> Result<&'m str> {
    let value = message.headers.as_ref().and_then(|map| map.get(name));
    Ok(value.with_context(|| format!("no {name}"))?.as_str())
}
