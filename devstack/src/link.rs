//! A link that would cross a WAN: a TCP proxy whose delay can be set, and which can be cut.
//!
//! Each direction is delayed by half the round trip. What is read is stamped with the time at
//! which it is due and waits in a bounded queue; several pieces are on their way at once, so delay
//! does not limit throughput. A cut link keeps what was sent, as TCP does over a cut cable: it
//! arrives when the link is healed. A link that forgets carries nothing more for the connections that
//! it has, and closes none of them: that is what a firewall does that loses its table. Where a link
//! leads can change; where it listens does not. A link with several targets leads each new connection
//! to the next one.

use std::{
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
    runtime::Handle,
    sync::{mpsc, watch},
    task::AbortHandle,
};

use crate::link_timer::LinkTimer;

/// Bytes read at once.
const PIECE: usize = 16 << 10;
/// Pieces on their way in one direction: 4 MiB, more than a WAN's window.
const PIECES: usize = 256;

/// Where a link leads.
#[derive(Clone, Debug)]
pub(crate) enum LinkTarget {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

#[derive(Clone, Debug)]
struct LinkState {
    /// Not empty.
    targets: Vec<LinkTarget>,
    one_way: Duration,
    cut: bool,
    /// Counts the times that all connections were dropped.
    dropped: u64,
    /// Counts the times that all connections were forgotten.
    forgotten: u64,
}

/// One link.
pub struct WanLink {
    addr: SocketAddr,
    state: watch::Sender<LinkState>,
    accepting: AbortHandle,
}

impl WanLink {
    /// Opens a link without delay; it works on `runtime`.
    pub(crate) fn open(runtime: &Handle, target: LinkTarget) -> Result<Self> {
        Self::open_to(runtime, vec![target])
    }

    /// Opens a link without delay that leads each new connection to the next target.
    pub(crate) fn open_to(runtime: &Handle, targets: Vec<LinkTarget>) -> Result<Self> {
        ensure!(!targets.is_empty(), "a link leads nowhere");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").context("opening a proxy")?;
        listener.set_nonblocking(true).context("opening a proxy")?;
        let addr = listener.local_addr().context("opening a proxy")?;
        let one_way = Duration::ZERO;
        let begin = LinkState { targets, one_way, cut: false, dropped: 0, forgotten: 0 };
        let (state, watching) = watch::channel(begin);
        let entered = runtime.enter();
        let listener = TcpListener::from_std(listener).context("opening a proxy")?;
        drop(entered);
        let accepting = runtime.spawn(accept(listener, watching)).abort_handle();
        Ok(Self { addr, state, accepting })
    }

    /// Where it listens.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Sets the time that a round trip takes, on the average; one may be up to a tenth shorter. What is
    /// on its way already keeps its own.
    pub fn set_rtt(&self, rtt: Duration) {
        self.state.send_modify(|state| state.one_way = rtt / 2);
    }

    /// The time that a round trip takes.
    #[must_use]
    pub fn rtt(&self) -> Duration {
        self.state.borrow().one_way * 2
    }

    /// Cuts it: nothing arrives in either direction, and connections hang.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.cut = true);
    }

    /// Whether it is cut.
    pub(crate) fn is_cut(&self) -> bool {
        self.state.borrow().cut
    }

    /// Heals it: what was sent meanwhile arrives.
    pub fn heal(&self) {
        self.state.send_modify(|state| state.cut = false);
    }

    /// Breaks every connection; new ones are accepted.
    pub fn drop_connections(&self) {
        self.state.send_modify(|state| state.dropped += 1);
    }

    /// Forgets every connection: nothing arrives over it any more, in either direction, and neither
    /// side is told. New connections work.
    pub fn forget_connections(&self) {
        self.state.send_modify(|state| state.forgotten += 1);
    }

    /// Leads it elsewhere, and breaks every connection. A link that is cut stays cut.
    pub(crate) fn set_target(&self, target: LinkTarget) {
        self.state.send_modify(|state| {
            state.targets = vec![target];
            state.dropped += 1;
        });
    }
}

impl Drop for WanLink {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, state: watch::Receiver<LinkState>) {
    let mut connections = tokio::task::JoinSet::new();
    let mut number = 0_usize;
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                connections.spawn(connect(client, number, state.clone()));
                number = number.wrapping_add(1);
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connect(client: TcpStream, number: usize, mut state: watch::Receiver<LinkState>) {
    // At once: a target that changes afterwards drops this connection.
    let LinkState { targets, dropped, forgotten, .. } = state.borrow().clone();
    let target = targets[number % targets.len()].clone();
    let mut dropping = state.clone();
    let carrying = async {
        if state.wait_for(|state| !state.cut).await.is_err() {
            return;
        }
        let _ = client.set_nodelay(true);
        match target {
            LinkTarget::Tcp(addr) => {
                if let Ok(server) = TcpStream::connect(addr).await {
                    let _ = server.set_nodelay(true);
                    carry(client.into_split(), server.into_split(), state, forgotten).await;
                }
            }
            LinkTarget::Unix(path) => {
                if let Ok(server) = UnixStream::connect(path).await {
                    carry(client.into_split(), server.into_split(), state, forgotten).await;
                }
            }
        }
    };
    tokio::select! {
        () = carrying => {}
        _ = dropping.wait_for(|state| state.dropped != dropped) => {}
    }
}

async fn carry<R1, W1, R2, W2>(
    client: (R1, W1),
    server: (R2, W2),
    state: watch::Receiver<LinkState>,
    forgotten: u64,
) where
    R1: AsyncRead + Unpin,
    W1: AsyncWrite + Unpin,
    R2: AsyncRead + Unpin,
    W2: AsyncWrite + Unpin,
{
    let there = one_way(client.0, server.1, state.clone(), forgotten);
    let back = one_way(server.0, client.1, state, forgotten);
    // Both: a client that has said all may still be told something. But nobody reads on once one
    // side is gone.
    let _ = tokio::try_join!(there, back);
}

async fn one_way(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut state: watch::Receiver<LinkState>,
    forgotten: u64,
) -> std::io::Result<()> {
    let (sender, mut pieces) = mpsc::channel::<(Instant, Duration, Vec<u8>)>(PIECES);
    let delays = state.clone();
    let reading = async move {
        loop {
            let mut piece = Vec::with_capacity(PIECE);
            let read = from.read_buf(&mut piece).await;
            let delay = delays.borrow().one_way;
            let due = Instant::now() + delay;
            let more = matches!(read, Ok(1..));
            // The end is what closes the queue, after everything in it.
            if !more || sender.send((due, delay, piece)).await.is_err() {
                return;
            }
        }
    };
    let mut timer = LinkTimer::new();
    let writing = async move {
        while let Some((due, delay, piece)) = pieces.recv().await {
            timer.sleep_until(due, delay).await;
            // A connection that was forgotten waits here for ever.
            let carries = |state: &LinkState| !state.cut && state.forgotten == forgotten;
            let healed = state.wait_for(carries).await.is_ok();
            if !healed {
                return Err(std::io::ErrorKind::ConnectionAborted.into());
            }
            to.write_all(&piece).await?;
        }
        to.shutdown().await
    };
    // Writing decides: it ends after the last piece, or when the other side is gone.
    tokio::select! {
        written = writing => written,
        () = async { reading.await; std::future::pending().await } => Ok(()),
    }
}
