//! A listener that no client can wear out. What is served may be open to the internet, for the
//! marketplace's deliveries, and whoever holds connections open without end must not take the file
//! descriptors with which rentals are stopped.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;

/// What is allowed to whoever connects.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Connections at once; more wait in the system's queue.
    pub(super) at_once: usize,
    /// How long a connection lives, whatever is said on it.
    pub(super) lives: Duration,
}

/// Twice the time after which the marketplace itself gives a delivery up, as documented, and a
/// scraper that keeps its connection opens another.
pub(super) const BOUNDS: Bounds = Bounds {
    at_once: 64,
    lives: Duration::from_secs(20),
};

/// A listener with bounds.
pub(super) struct Doors {
    listener: TcpListener,
    places: Arc<Semaphore>,
    lives: Duration,
}

impl Doors {
    /// Lets clients of a listener in, within bounds.
    pub(super) fn new(listener: TcpListener, bounds: Bounds) -> Self {
        Self {
            listener,
            places: Arc::new(Semaphore::new(bounds.at_once)),
            lives: bounds.lives,
        }
    }
}

impl Listener for Doors {
    type Io = Guest;
    type Addr = SocketAddr;

    #[expect(
        clippy::disallowed_methods,
        reason = "clients are real, and so is the time that they take"
    )]
    async fn accept(&mut self) -> (Guest, SocketAddr) {
        // It is never closed, so there is always a place in the end.
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        let (stream, address) = Listener::accept(&mut self.listener).await;
        let guest = Guest {
            stream,
            ends: Box::pin(tokio::time::sleep(self.lives)),
            _place: place,
        };
        (guest, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends in time.
pub(super) struct Guest {
    stream: TcpStream,
    ends: Pin<Box<Sleep>>,
    _place: Option<OwnedSemaphorePermit>,
}

impl Guest {
    /// The connection, unless its time is over; whoever waits on it is woken then.
    fn stream(&mut self, cx: &mut Context<'_>) -> io::Result<Pin<&mut TcpStream>> {
        match self.ends.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(Pin::new(&mut self.stream)),
        }
    }
}

impl AsyncRead for Guest {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream(cx)?.poll_read(cx, buffer)
    }
}

impl AsyncWrite for Guest {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream(cx)?.poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream(cx)?.poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream(cx)?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
