//! What Farwrite is compared with, as good as an expert would write it.

mod batched;
mod direct;
mod from_stream;
mod one_by_one;
mod queue;
mod raw_publish;
mod rpc_and_poll;

pub(super) use direct::{Direct, RemoteApply, Transaction};
pub(super) use from_stream::FromStream;
pub(super) use one_by_one::{OneByOne, commands_for};
pub(super) use raw_publish::{RawPublish, subject};
pub(super) use rpc_and_poll::{NEXT_POSITION, PollingLoop, RpcAndPoll};
