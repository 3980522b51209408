//! A listener that no client can wear out. What is served may be open to the internet, for the
//! marketplace's deliveries, and whoever holds connections open without end must not take the file
//! descriptors with which rentals are stopped.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;

/// What is allowed to whoever connects.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Connections at once; more wait in the system's queue.
    pub(super) at_once: usize,
    /// How long a connection lives, whatever is said on it, unless a stream was allowed to stay; and how
    /// long one that stays may take nothing of what is sent.
    pub(super) lives: Duration,
}

/// Twice the time after which the marketplace itself gives a delivery up, as documented, and a
/// scraper that keeps its connection opens another.
pub(super) const BOUNDS: Bounds = Bounds {
    at_once: 192,
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

    async fn accept(&mut self) -> (Guest, SocketAddr) {
        // It is never closed, so there is always a place in the end.
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        let (stream, address) = Listener::accept(&mut self.listener).await;
        let guest = Guest {
            stream,
            ends: asleep(self.lives),
            stalls: None,
            lives: self.lives,
            staying: Arc::default(),
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
    /// Since it takes nothing of what is sent.
    stalls: Option<Pin<Box<Sleep>>>,
    lives: Duration,
    staying: Arc<AtomicUsize>,
    _place: Option<OwnedSemaphorePermit>,
}

impl Guest {
    /// The connection, unless its time is over; whoever waits on it is woken then.
    fn stream(&mut self, cx: &mut Context<'_>) -> io::Result<Pin<&mut TcpStream>> {
        while self.ends.as_mut().poll(cx).is_ready() {
            if self.staying.load(Ordering::Relaxed) == 0 {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let next = self.ends.deadline() + self.lives;
            self.ends.as_mut().reset(next);
        }
        Ok(Pin::new(&mut self.stream))
    }

    /// Lets a write go on, unless nothing was taken for too long.
    fn written<T>(
        &mut self,
        cx: &mut Context<'_>,
        poll: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.stalls = None;
            return poll;
        }
        let stalls = self.stalls.get_or_insert_with(|| asleep(self.lives));
        match stalls.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "clients are real, and so is the time that they take"
)]
fn asleep(time: Duration) -> Pin<Box<Sleep>> {
    Box::pin(tokio::time::sleep(time))
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub struct Caller {
    /// From where.
    pub address: SocketAddr,
    staying: Arc<AtomicUsize>,
}

impl Caller {
    /// The connection may live on for as long as what is returned does.
    pub fn stays(&self) -> Staying {
        self.staying.fetch_add(1, Ordering::Relaxed);
        Staying(Arc::clone(&self.staying))
    }
}

/// Keeps a connection beyond its time.
#[derive(Debug)]
pub struct Staying(Arc<AtomicUsize>);

impl Drop for Staying {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connected<IncomingStream<'_, Doors>> for Caller {
    fn connect_info(stream: IncomingStream<'_, Doors>) -> Self {
        Self {
            address: *stream.remote_addr(),
            staying: Arc::clone(&stream.io().staying),
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
        let poll = self.stream(cx)?.poll_write(cx, bytes);
        self.written(cx, poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = self.stream(cx)?.poll_write_vectored(cx, parts);
        self.written(cx, poll)
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
