//! hyper's end of a response body, and the channel between it and a worker that writes.
//!
//! Ending is what matters here: a body ends cleanly only if its writer said so; a writer that is dropped, fails or panics ends
//! it with an error, and hyper cuts the connection. A body that hyper drops before its end means that the client is gone. On HTTP/2
//! hyper passes bytes on to h2, which holds what a stream has no window for: an answer has ended when h2 has let go of that too.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use crate::body::{BoxError, Foreign, after};
use crate::link::{Link, Open};
use crate::slot::{Gone, Slot};
use crate::sync::lock;
use crate::told::Told;

/// What a writer may be ahead of the client, in bytes, before it waits.
const AHEAD: usize = 256 * 1024;

/// What hyper is given at once, in bytes: it holds what it has taken, and nobody sees how much of that a client has taken since. On HTTP/2 it is
/// two of them for each stream whose window a client holds back.
const PIECE: usize = 64 * 1024;
const PIECE_OF_STREAM: usize = 16 * 1024;

/// A response body as hyper sees it.
pub(crate) struct Outgoing {
    kind: Kind,
    /// What was more than one piece of the last frame.
    rest: Bytes,
    /// Set until the end was seen.
    exchange: Option<Belonging>,
    /// On HTTP/2, as long.
    sending: Option<Arc<Sending>>,
    /// Bytes that hyper has taken.
    taken: u64,
    /// Bytes that are still to come, if the head says so, or trailers: hyper drops a body when it has as many.
    left: Option<u64>,
    /// What the body ended with, held back. Boxed, since it is rare and bodies are moved.
    last: Option<Box<Last>>,
}

type Last = Option<Result<Frame<Bytes>, BoxError>>;

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
        let sends = slot.as_ref().filter(|_| open.link().speaks_http2());
        self.sending = sends.map(|slot| Arc::new(Sending { slot: slot.clone(), rest: Mutex::default() }));
        self.exchange = Some(Belonging { slot, open, told });
        self.left = length;
    }

    /// hyper has all of it, or will not get more.
    pub(crate) fn end(&mut self, is_whole: bool) {
        let Some(belonging) = self.exchange.take() else { return };
        let ended = Ended { belonging, taken: self.taken, is_whole };
        match self.sending.take() {
            None => ended.tell(),
            Some(sending) => sending.end(ended),
        }
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let most = if self.sending.is_some() { PIECE_OF_STREAM } else { PIECE };
        let frame = match &mut self.kind {
            _ if !self.rest.is_empty() => Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.rest))))),
            Kind::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Kind::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Kind::Channel(channel) => channel.poll_frame(cx),
            Kind::Foreign(body) => body.as_mut().poll_frame(cx),
        };
        frame.map_ok(|frame| match frame.into_data() {
            Ok(mut data) if data.len() > most => {
                self.rest = data.split_off(most);
                Frame::data(data)
            }
            Ok(data) => Frame::data(data),
            Err(frame) => frame,
        })
    }

    fn slot(&self) -> Option<&Arc<Slot>> {
        self.exchange.as_ref()?.slot.as_ref()
    }

    /// h2 cannot reset a stream whose end it was given. So the end of an answer that a client can hold back without holding back
    /// its connection waits until h2 has written the rest.
    fn sends_beyond_window(&self) -> Option<&Arc<Sending>> {
        self.sending.as_ref().filter(|sending| !sending.slot.fits())
    }

    /// Whether hyper may have the end.
    fn poll_sent(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.sends_beyond_window().map_or(Poll::Ready(()), |sending| sending.poll_sent(cx))
    }

    fn is_at_end(&self) -> bool {
        if !self.rest.is_empty() {
            return false;
        }
        match &self.kind {
            Kind::Full(bytes) => bytes.is_empty(),
            Kind::Channel(_) => false,
            Kind::Foreign(body) => body.is_end_stream(),
        }
    }

    fn poll_kind(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = self.poll_piece(cx);
        if let Some(slot) = self.slot() {
            slot.hungry.store(frame.is_pending(), Ordering::Relaxed);
            if frame.is_ready() {
                slot.took();
            }
        }
        frame
    }

    /// hyper takes a frame.
    fn give(&mut self, frame: Frame<Bytes>) -> Frame<Chunk> {
        let given = frame.data_ref().map_or(0, |data| data.len() as u64);
        // hyper cuts what is more than the head says.
        let length = self.left.map_or(given, |left| left.min(given));
        self.taken += length;
        self.left = if frame.is_trailers() { Some(0) } else { self.left.map(|left| left - length) };
        if let Some(Belonging { open, .. }) = &self.exchange {
            open.link().answers.took(length);
        }
        if let Some(Sending { slot, .. }) = self.sending.as_deref() {
            slot.unsent.fetch_add(given, Ordering::SeqCst);
            slot.given.fetch_add(given, Ordering::Relaxed);
        }
        frame.map_data(|bytes| Chunk { bytes, of: self.sending.clone() })
    }
}

impl From<Kind> for Outgoing {
    fn from(kind: Kind) -> Self {
        Self { kind, rest: Bytes::new(), exchange: None, sending: None, taken: 0, left: None, last: None }
    }
}

impl Body for Outgoing {
    type Data = Chunk;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Chunk>, BoxError>>> {
        let (frame, was_held) = match self.last.take() {
            Some(last) => (*last, true),
            None => (ready!(self.poll_kind(cx)), false),
        };
        match frame {
            Some(Ok(frame)) if frame.is_data() => Poll::Ready(Some(Ok(self.give(frame)))),
            // hyper drops what it has buffered when a body fails: the head, often. Let it write that first.
            Some(Err(error)) if !was_held => {
                self.last = Some(Box::new(Some(Err(error))));
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(Err(error)) => {
                if let Some(slot) = self.slot() {
                    slot.mark_gone();
                }
                self.end(false);
                Poll::Ready(Some(Err(error)))
            }
            last if self.poll_sent(cx).is_pending() => {
                self.last = Some(Box::new(last));
                Poll::Pending
            }
            Some(Ok(trailers)) => Poll::Ready(Some(Ok(self.give(trailers)))),
            None => {
                self.end(true);
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_at_end() && self.sends_beyond_window().is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let hint = match &self.kind {
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Channel(_) => SizeHint::default(),
            Kind::Foreign(body) => body.size_hint(),
        };
        after(self.rest.len(), &hint)
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        let is_unsent = self.sends_beyond_window().is_some_and(|sending| sending.slot.unsent() > 0);
        let is_whole = (self.is_at_end() || self.left == Some(0)) && !is_unsent;
        if let Some(slot) = self.slot().filter(|_| !is_whole) {
            slot.mark_gone();
        }
        self.end(is_whole);
        if let Kind::Channel(channel) = &self.kind {
            channel.close();
        }
    }
}

/// A part of a body, as hyper and h2 have it until they have written it.
pub(crate) struct Chunk {
    bytes: Bytes,
    /// On HTTP/2.
    of: Option<Arc<Sending>>,
}

impl Chunk {
    fn wrote(&self, bytes: usize) {
        if let Some(sending) = &self.of {
            sending.wrote(bytes as u64);
        }
    }
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        self.wrote(count);
    }

    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        let bytes = self.bytes.copy_to_bytes(length);
        self.wrote(length);
        bytes
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if let Some(sending) = self.of.as_ref().filter(|_| !self.bytes.is_empty()) {
            sending.slot.mark_gone();
        }
    }
}

/// An answer on HTTP/2, which its body and its chunks share: h2 keeps those for which a stream has no window. It has ended when the
/// last of them is gone.
struct Sending {
    slot: Arc<Slot>,
    rest: Mutex<Rest>,
}

#[derive(Default)]
struct Rest {
    /// Set once the body is gone.
    ended: Option<Ended>,
    /// Polls the body when h2 has written what it was given.
    waiter: Option<Waker>,
}

impl Sending {
    /// h2 has written some more.
    fn wrote(&self, bytes: u64) {
        let Self { slot, rest } = self;
        slot.took();
        slot.link.moves(slot.taken.load(Ordering::Relaxed));
        if slot.unsent.fetch_sub(bytes, Ordering::SeqCst) == bytes {
            let waiter = lock(rest).waiter.take();
            if let Some(waiter) = waiter {
                waiter.wake();
            }
        }
    }

    fn poll_sent(&self, cx: &mut Context<'_>) -> Poll<()> {
        lock(&self.rest).waiter = Some(cx.waker().clone());
        if self.slot.unsent() == 0 { Poll::Ready(()) } else { Poll::Pending }
    }

    /// The body is gone.
    fn end(self: Arc<Self>, ended: Ended) {
        lock(&self.rest).ended = Some(ended);
        self.slot.left_to_h2.store(true, Ordering::SeqCst);
        let ended = Arc::into_inner(self).and_then(|this| lock(&this.rest).ended.take());
        if let Some(ended) = ended {
            let link = ended.belonging.open.link().clone();
            ended.tell();
            // It may have looked before that, and have found one open.
            if let Some(connection) = link.connection().filter(|_| !link.has_open()) {
                connection.notify();
            }
        }
    }
}

impl Drop for Sending {
    /// Runs in the connection, inside of h2.
    fn drop(&mut self) {
        let ended = lock(&self.rest).ended.take();
        if let Some(ended) = ended {
            ended.became(|link, told, length, cut| link.answers.let_go(told, length, cut));
        }
    }
}

/// A body that hyper has let go of.
struct Ended {
    belonging: Belonging,
    taken: u64,
    is_whole: bool,
}

impl Ended {
    fn tell(self) {
        self.became(Link::body_ended);
    }

    /// Its exchange is over. `tell` gets how much of it was sent, and if that is not all, why.
    fn became(self, tell: impl FnOnce(&Link, Told, u64, Option<Gone>)) {
        let Belonging { slot, open, told } = self.belonging;
        let unsent = slot.as_ref().map_or(0, |slot| slot.unsent());
        if let Some(slot) = &slot {
            slot.ended();
        }
        if let Some(told) = told {
            let why = || slot.as_ref().map_or_else(|| open.link().why_gone(), |slot| slot.why_gone());
            let is_cut = !self.is_whole || unsent > 0;
            tell(open.link(), told, self.taken.saturating_sub(unsent), is_cut.then(why));
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
