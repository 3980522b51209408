//! Writes what is made while it is sent: a thread makes it, a few pieces wait, and the last one leaves only
//! once all of it was what it should be.

use std::io::{self, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::Sum;
use super::local::{Counted, Local, LocalError};
use crate::types::time::human;

/// The length of a piece, and how many of them wait at once.
const PIECE: usize = 256 * 1024;
const PIECES: usize = 4;

/// An upload of which nothing leaves for so long has failed.
pub(super) const STALL: Duration = Duration::from_mins(5);

/// Waits until nothing more was sent for so long, or no answer came after the last of it.
#[expect(clippy::disallowed_methods, reason = "an upload takes real time")]
pub(super) async fn stalls(sent: &AtomicU64, after: Duration) {
    loop {
        let before = sent.load(Ordering::Relaxed);
        tokio::time::sleep(after).await;
        if sent.load(Ordering::Relaxed) == before {
            return;
        }
    }
}

/// What is said of one that stalled.
pub(super) fn stalled(after: Duration) -> String {
    format!("nothing was sent for {}, and no answer came", human(after))
}

/// The body of a request.
pub(super) struct Made {
    pieces: Receiver<io::Result<Bytes>>,
    left: u64,
    sent: Arc<AtomicU64>,
}

impl Made {
    /// What is found at a path, which must come to so many bytes with this SHA-256. What was sent of it is
    /// counted in `sent`.
    pub(super) fn of(local: Local, (sum, bytes): (Sum, u64), sent: Arc<AtomicU64>) -> Self {
        let (sender, pieces) = channel(PIECES);
        tokio::task::spawn_blocking(move || {
            let mut pen = Pen {
                sender,
                counted: Counted::default(),
                piece: Vec::with_capacity(PIECE),
            };
            let made = local.write(&mut pen);
            pen.end(made, sum, bytes);
        });
        Self {
            pieces,
            left: bytes,
            sent,
        }
    }
}

impl Body for Made {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.pieces.poll_recv(context).map(|piece| match piece {
            Some(Ok(bytes)) => {
                self.left = self.left.saturating_sub(bytes.len() as u64);
                self.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                Some(Ok(Frame::data(bytes)))
            }
            Some(Err(why)) => Some(Err(why)),
            // Whoever made it is gone before its time.
            None if self.left > 0 => Some(Err(io::Error::other("it was not made to its end"))),
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// Cuts what is written into pieces, and holds the last one back.
struct Pen {
    sender: Sender<io::Result<Bytes>>,
    counted: Counted,
    piece: Vec<u8>,
}

impl Pen {
    fn send(&mut self) -> io::Result<()> {
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        let gone = |_| io::Error::other("the request has ended");
        self.sender.blocking_send(Ok(piece.into())).map_err(gone)
    }

    fn end(mut self, made: Result<(), LocalError>, sum: Sum, bytes: u64) {
        let same = self.counted.bytes == bytes && self.counted.sum() == sum;
        let _ = match made {
            Ok(()) if same => self.send(),
            Ok(()) => {
                let changed = io::Error::other("it changed since it was looked at");
                self.sender
                    .blocking_send(Err(changed))
                    .map_err(io::Error::other)
            }
            Err(why) => {
                let why = io::Error::other(why.to_string());
                self.sender
                    .blocking_send(Err(why))
                    .map_err(io::Error::other)
            }
        };
    }
}

impl Write for Pen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A full piece leaves once there is more: so there is always a last one.
        if !bytes.is_empty() && self.piece.len() >= PIECE {
            self.send()?;
        }
        let room = PIECE - self.piece.len();
        let taken = bytes.len().min(room);
        let taken = self.counted.write(&bytes[..taken])?;
        self.piece.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
