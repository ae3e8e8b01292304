//! A connection's byte stream, for hyper: what of the socket it may read and when, and what follows from what it reads and writes.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use hyper::rt::ReadBufCursor;

use crate::doubt::LineEnds;
use crate::frames::{Frames, GOODBYE};
use crate::link::Link;

/// First gives out what was read to tell the protocol.
pub(crate) struct Stream {
    link: Arc<Link>,
    read_before: Vec<u8>,
    /// On HTTP/2.
    frames: Option<Frames>,
    /// On HTTP/1: what was read since the last of so many exchanges, in bytes.
    head: usize,
    exchanges: u64,
    line_ends: LineEnds,
}

impl Stream {
    pub(crate) fn new(link: Arc<Link>, read_before: Vec<u8>, frames: Option<Frames>) -> Self {
        let exchanges = link.exchanges();
        Self { link, read_before, frames, head: 0, exchanges, line_ends: LineEnds::default() }
    }

    /// How much the next read may take.
    fn room(&mut self) -> usize {
        if let Some(frames) = &self.frames {
            return if self.link.parts.load(Ordering::Relaxed) { frames.missing() } else { usize::MAX };
        }
        let exchanges = self.link.exchanges();
        if self.exchanges != exchanges {
            (self.exchanges, self.head) = (exchanges, 0);
        }
        // hyper asks how long a head is only when a read has not ended it, so none may go further. If there was more already, it was
        // no head: the rest of a body, or empty lines.
        match self.link.limits.max_head.saturating_sub(self.head) {
            0 => usize::MAX,
            _ if self.link.has_open() => usize::MAX,
            room => room,
        }
    }
}

impl hyper::rt::Read for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, mut cursor: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let room = this.room();
        let Self { link, read_before, frames, head, line_ends, .. } = this;
        let mut follow = |frames: &mut Option<Frames>, bytes: &[u8]| {
            if frames.is_none() && !link.doubt.has_bare_lf() && line_ends.have_bare_lf(bytes) {
                link.doubt.note_bare_lf();
            }
            link.follow(frames, bytes)
        };
        if read_before.is_empty()
            && link.parts.load(Ordering::Relaxed)
            && frames.as_ref().is_some_and(Frames::is_between)
        {
            link.parts.store(false, Ordering::Relaxed);
            read_before.extend_from_slice(GOODBYE);
        }
        if !read_before.is_empty() {
            let length = read_before.len().min(cursor.remaining()).min(room);
            cursor.put_slice(&read_before[..length]);
            *head += length;
            let followed = follow(frames, &read_before[..length]);
            read_before.drain(..length);
            return Poll::Ready(followed);
        }
        let budget = link.budget.load(Ordering::Relaxed);
        if budget == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if !link.take_call() {
            return Poll::Pending;
        }
        let max = cursor.remaining().min(budget).min(room);
        let mut followed = Ok(());
        let read = link.poll_read_with(max, |bytes| {
            cursor.put_slice(bytes);
            followed = follow(frames, bytes);
        });
        read.map(|read| {
            let n = read?;
            link.budget.store(budget - n, Ordering::Relaxed);
            if !link.has_open() {
                *head += n;
            }
            followed
        })
    }
}

impl hyper::rt::Write for Stream {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.link.poll_write(&[IoSlice::new(bytes)], |socket| socket.write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.link.poll_write(slices, |socket| socket.write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// hyper calls it when it has nothing left to write.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.link.poll_flush())?;
        self.link.answers.flushed(self.link.written());
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.link.say_goodbye();
        std::task::ready!(self.link.poll_flush())?;
        self.link.shut_write();
        Poll::Ready(Ok(()))
    }
}
