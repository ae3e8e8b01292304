//! hyper's end of a response body, and the channel between it and a worker that writes.
//!
//! Ending is what matters here: a body ends cleanly only if its writer said so; a writer that is dropped, fails or panics ends
//! it with an error, and hyper cuts the connection. A body that hyper drops before its end means that the client is gone.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use crate::body::{BoxError, Foreign};
use crate::link::{Open, Told};
use crate::slot::Slot;
use crate::sync::lock;

/// What a writer may be ahead of the client, in bytes, before it waits.
const AHEAD: usize = 256 * 1024;

/// What hyper is given at once, in bytes: it holds what it has taken, and nobody sees how much of that a client has taken since.
const PIECE: usize = 64 * 1024;

/// A response body as hyper sees it.
pub(crate) struct Outgoing {
    kind: Kind,
    /// What was more than one piece of the last frame.
    rest: Bytes,
    /// Set until the end was seen.
    exchange: Option<Belonging>,
    /// Bytes that hyper has taken.
    taken: u64,
    /// Bytes that are still to come, if the head says so, or trailers: hyper drops a body when it has as many.
    left: Option<u64>,
    /// The error that the body ended with, held back for one poll.
    failed: Option<BoxError>,
}

/// What a body is a part of.
struct Belonging {
    /// Whom to tell if hyper drops the body before its end.
    slot: Option<Arc<Slot>>,
    open: Open,
    told: Option<Told>,
}

enum Kind {
    Full(Bytes),
    Channel(Arc<Channel>),
    Foreign(Pin<Box<Foreign>>),
}

impl Outgoing {
    pub(crate) fn full(bytes: Bytes) -> Self {
        Kind::Full(bytes).into()
    }

    pub(crate) fn channel(channel: Arc<Channel>) -> Self {
        Kind::Channel(channel).into()
    }

    pub(crate) fn foreign(body: Pin<Box<Foreign>>) -> Self {
        Kind::Foreign(body).into()
    }

    pub(crate) fn wrap<B>(body: B) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        use http_body_util::BodyExt as _;
        Self::foreign(Box::pin(body.map_err(Into::into)))
    }

    /// Ties the body to its exchange.
    pub(crate) fn belong(&mut self, slot: Option<Arc<Slot>>, open: Open, length: Option<u64>, told: Option<Told>) {
        self.exchange = Some(Belonging { slot, open, told });
        self.left = length;
    }

    /// Its exchange has all of it, or will not get more.
    pub(crate) fn end(&mut self, is_whole: bool) {
        let Some(Belonging { slot, open, told }) = self.exchange.take() else { return };
        if let Some(slot) = &slot {
            slot.ended();
        }
        if let Some(told) = told {
            let why = || slot.as_ref().and_then(|slot| slot.gone.get()).unwrap_or_else(|| open.link().why_gone());
            open.link().body_ended(told, self.taken, (!is_whole).then(why));
        }
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = match &mut self.kind {
            _ if !self.rest.is_empty() => Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.rest))))),
            Kind::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Kind::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Kind::Channel(channel) => channel.poll_frame(cx),
            Kind::Foreign(body) => body.as_mut().poll_frame(cx),
        };
        frame.map_ok(|frame| match frame.into_data() {
            Ok(mut data) if data.len() > PIECE => {
                self.rest = data.split_off(PIECE);
                Frame::data(data)
            }
            Ok(data) => Frame::data(data),
            Err(frame) => frame,
        })
    }

    fn slot(&self) -> Option<&Arc<Slot>> {
        self.exchange.as_ref()?.slot.as_ref()
    }
}

impl From<Kind> for Outgoing {
    fn from(kind: Kind) -> Self {
        Self { kind, rest: Bytes::new(), exchange: None, taken: 0, left: None, failed: None }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(error) = self.failed.take() {
            if let Some(slot) = self.slot() {
                slot.mark_gone();
            }
            self.end(false);
            return Poll::Ready(Some(Err(error)));
        }
        let frame = self.poll_piece(cx);
        if let Some(slot) = self.slot() {
            slot.hungry.store(frame.is_pending(), Ordering::Relaxed);
            if frame.is_ready() {
                slot.took();
            }
        }
        match frame {
            Poll::Ready(None) => {
                self.end(true);
                Poll::Ready(None)
            }
            Poll::Ready(Some(Ok(frame))) => {
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                // hyper cuts what is more than the head says.
                let length = self.left.map_or(length, |left| left.min(length));
                self.taken += length;
                self.left = if frame.is_trailers() { Some(0) } else { self.left.map(|left| left - length) };
                if let Some(Belonging { open, .. }) = &self.exchange {
                    open.link().took(length);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            // hyper drops what it has buffered when a body fails: the head, often. Let it write that first.
            Poll::Ready(Some(Err(error))) => {
                self.failed = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            frame => frame,
        }
    }

    fn is_end_stream(&self) -> bool {
        if !self.rest.is_empty() {
            return false;
        }
        match &self.kind {
            Kind::Full(bytes) => bytes.is_empty(),
            Kind::Channel(_) => false,
            Kind::Foreign(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = match &self.kind {
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Channel(_) => SizeHint::default(),
            Kind::Foreign(body) => body.size_hint(),
        };
        let rest = self.rest.len() as u64;
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint.set_lower(hint.lower().saturating_add(rest));
        hint
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        let is_whole = self.is_end_stream() || self.left == Some(0);
        if let Some(slot) = self.slot().filter(|_| !is_whole) {
            slot.mark_gone();
        }
        self.end(is_whole);
        if let Kind::Channel(channel) = &self.kind {
            channel.close();
        }
    }
}

/// Bytes on their way from a worker to hyper.
pub(crate) struct Channel(Mutex<State>);

#[derive(Default)]
struct State {
    chunks: VecDeque<Bytes>,
    bytes: usize,
    end: Option<End>,
    /// hyper has dropped its end.
    closed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

enum End {
    Whole(Option<HeaderMap>),
    Abandoned,
    Seen,
}

impl Channel {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::default()))
    }

    /// Ready when a chunk may be pushed.
    pub(crate) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = lock(&self.0);
        if state.closed {
            return Poll::Ready(Err(gone()));
        }
        if state.bytes < AHEAD {
            return Poll::Ready(Ok(()));
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    pub(crate) fn check(&self) -> io::Result<()> {
        if lock(&self.0).closed { Err(gone()) } else { Ok(()) }
    }

    pub(crate) fn push(&self, chunk: Bytes) {
        self.change(|state| {
            state.bytes += chunk.len();
            state.chunks.push_back(chunk);
        });
    }

    pub(crate) fn finish(&self, trailers: Option<HeaderMap>) {
        self.change(|state| state.end = Some(End::Whole(trailers)));
    }

    /// Ends the body with an error, unless it is finished.
    pub(crate) fn abandon(&self) {
        self.change(|state| {
            state.end.get_or_insert(End::Abandoned);
        });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let waker = {
            let mut state = lock(&self.0);
            change(&mut state);
            state.reader.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn close(&self) {
        let waker = {
            let mut state = lock(&self.0);
            state.closed = true;
            state.chunks.clear();
            state.writer.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut state = lock(&self.0);
        if let Some(chunk) = state.chunks.pop_front() {
            state.bytes -= chunk.len();
            let writer = if state.bytes < AHEAD / 2 { state.writer.take() } else { None };
            drop(state);
            if let Some(writer) = writer {
                writer.wake();
            }
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        match state.end.as_mut().map(|end| std::mem::replace(end, End::Seen)) {
            None => {
                state.reader = Some(cx.waker().clone());
                Poll::Pending
            }
            Some(End::Whole(Some(trailers))) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Some(End::Whole(None) | End::Seen) => Poll::Ready(None),
            Some(End::Abandoned) => Poll::Ready(Some(Err("the handler did not finish the response body".into()))),
        }
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the client is gone")
}
