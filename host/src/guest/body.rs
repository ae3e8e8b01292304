//! A body on its way out of a guest: what `wasi:http/types.outgoing-body` and its stream stand on.
//!
//! One buffer with two ends. The guest's end ([`BodyWriter`], [`BodyStream`]) lives in the store and is used by the
//! worker that runs the guest; the reader's end ([`GuestBody`]) is polled by whoever polls the connection. We do not use
//! the body of wasmtime-wasi-http, for three reasons: it takes a guest that died for one that finished (its channel
//! closes in both cases, and the client would get a clean end); it hands over 4 KiB at a time, two of them at most, so
//! that guest and connection play ping-pong; and it cannot say that the body is complete before the head goes out.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use astra_server::BoxError;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};
use wasmtime_wasi_http::p2::body::StreamContext;

use super::{
    wakers::{Everyone, Wakers},
    watch::{self, WaitsFor},
};
use crate::hop_by_hop;

/// From so many buffered bytes on the guest has to wait for the reader, and the reader is woken without being asked.
const HIGH: usize = 64 * 1024;
/// The most that is ever buffered.
const CAPACITY: usize = 2 * HIGH;
/// Pieces smaller than this are copied together; larger ones are passed on as they are.
const SMALL: usize = 8 * 1024;
/// What all bodies of a request that are not on their way to the client may buffer together. A guest needs one of them; it may make
/// as many as it has handles.
const UNSENT: usize = 2 * CAPACITY;
/// The most that `blocking-write-and-flush` takes at once (WASI 0.2, `wasi:io/streams`): with less room than that it has to wait.
const BLOCKING_WRITE: usize = 4096;

/// What both ends share. Written by the guest's worker and by the connection's poller, each for a few instructions.
struct Pipe {
    state: Mutex<State>,
}

struct State {
    /// Pieces in order, followed by what is in `tail`.
    pieces: VecDeque<Bytes>,
    tail: BytesMut,
    /// Bytes in `pieces` and `tail`.
    buffered: usize,
    /// Bytes that the guest has written so far, those included that were too many.
    written: u64,
    /// What the guest's `content-length` promised.
    expected: Option<u64>,
    /// The response has no body on the wire (HEAD, 204, 205, 304): bytes are counted, not kept.
    discard: bool,
    /// Where `buffered` is charged until the body is on its way to the client.
    unsent: Option<Budget>,
    end: End,
    /// The reader is woken by each write, and not only when there is much.
    eager: bool,
    /// The reader was dropped: nobody wants the bytes any more.
    closed: bool,
    reader: Option<Waker>,
    /// The guest's tasks that wait for room.
    writers: Wakers,
}

enum End {
    /// The guest may write more.
    Open,
    /// The guest called `finish`.
    Finished(Option<HeaderMap>),
    /// The guest ended, or dropped the body, without `finish`.
    Broken,
    /// The reader has been told.
    Told,
}

impl Pipe {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while the lock is held; if it did, the state would still be one of its valid values.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets how the body ends, unless that is settled, and tells the reader.
    fn end(&self, end: End) {
        let mut state = self.lock();
        let end = match end {
            // With all the bytes that were promised there is nothing left to break.
            End::Broken if state.is_whole() => End::Finished(None),
            // What nobody reads any more cannot be broken off.
            End::Broken if state.closed => End::Open,
            end => end,
        };
        if matches!(state.end, End::Open) {
            state.end = end;
        }
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

impl State {
    fn push(&mut self, bytes: Bytes) {
        self.buffered += bytes.len();
        if let Some(budget) = &self.unsent {
            budget.take(bytes.len());
        }
        if self.tail.is_empty() && (self.pieces.is_empty() || bytes.len() >= SMALL) {
            self.pieces.push_back(bytes);
        } else if bytes.len() >= SMALL {
            self.pieces.push_back(self.tail.split().freeze());
            self.pieces.push_back(bytes);
        } else {
            self.tail.extend_from_slice(&bytes);
        }
    }

    fn pop(&mut self) -> Option<Bytes> {
        let piece = match self.pieces.pop_front() {
            Some(piece) => piece,
            None if self.tail.is_empty() => return None,
            None => self.tail.split().freeze(),
        };
        self.buffered -= piece.len();
        if let Some(budget) = &self.unsent {
            budget.give(piece.len());
        }
        Some(piece)
    }

    /// From now on it may buffer as much as a reader that is slow makes it. Who waits for the budget of all need not any more, and others
    /// may have what it had of that.
    fn is_read(&mut self) {
        if let Some(budget) = self.unsent.take() {
            budget.give(self.buffered);
            self.writers.take().wake();
        }
    }

    fn clear(&mut self) {
        self.pieces.clear();
        self.tail = BytesMut::new();
        let freed = std::mem::take(&mut self.buffered);
        if let Some(budget) = &self.unsent {
            budget.give(freed);
        }
    }

    /// Ready when there is room; who waits is woken when this body has some, or all together.
    fn poll_room(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.has_room() {
            return Poll::Ready(());
        }
        self.writers.add(cx.waker());
        let Some(budget) = &self.unsent else { return Poll::Pending };
        budget.wait(cx.waker());
        // Some may have been given before there was somebody to wake.
        if self.has_room() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Bytes that can be written at once.
    fn room(&self) -> usize {
        let left = if self.discard { None } else { self.unsent.as_ref().map(Budget::left) };
        left.unwrap_or(usize::MAX).min(CAPACITY - self.buffered)
    }

    fn has_room(&self) -> bool {
        self.buffered < HIGH && self.room() >= BLOCKING_WRITE
    }

    /// All bytes that `content-length` promised are written.
    fn is_whole(&self) -> bool {
        self.expected.is_some_and(|expected| expected <= self.written)
    }

    /// More is written than `content-length` promised, which is the end of the stream.
    fn is_overrun(&self) -> bool {
        self.expected.is_some_and(|expected| expected < self.written) && !self.discard
    }

    /// Nobody will read what the guest still has to write. Once all is written that was promised, this is how hyper ends.
    fn is_refused(&self) -> bool {
        self.closed && !self.is_whole()
    }

    /// The guest can write no more.
    fn is_shut(&self) -> bool {
        self.is_refused() || self.is_overrun()
    }

    /// What the guest is told when it has written too much.
    fn size_error(&self) -> StreamError {
        let context = if self.eager { StreamContext::Request } else { StreamContext::Response };
        StreamError::LastOperationFailed(context.as_body_size_error(self.written).into())
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.clear();
    }
}

/// What the bodies of one request that are not on their way to the client may still buffer. Taken by the worker that runs the guest, given
/// back by whoever reads.
#[derive(Clone)]
pub(crate) struct Budget(Arc<Unsent>);

struct Unsent {
    left: AtomicUsize,
    /// The guest's tasks that wait for some of it, with whichever body.
    waiting: Everyone,
}

impl Budget {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Unsent { left: AtomicUsize::new(UNSENT), waiting: Everyone::default() }))
    }

    // Relaxed: one thread takes, nothing else is published with the number, and the lock of those who wait orders it for them: who gives
    // after they have come wakes them, and what was given before they see.

    fn left(&self) -> usize {
        self.0.left.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) {
        // `room` has been asked before.
        self.0.left.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn give(&self, bytes: usize) {
        if bytes > 0 {
            self.0.left.fetch_add(bytes, Ordering::Relaxed);
            self.0.waiting.wake_all();
        }
    }

    fn wait(&self, waker: &Waker) {
        self.0.waiting.add(waker);
    }
}

/// A handle that sees how far a body is; does not keep either end from ending.
#[derive(Clone)]
pub(crate) struct BodyWatch(Arc<Pipe>);

impl BodyWatch {
    /// The client can have the whole body: the guest has called `finish`, or has written all that its `content-length` promised.
    pub(crate) fn is_complete(&self) -> bool {
        let state = self.0.lock();
        state.is_whole() || !matches!(state.end, End::Open | End::Broken)
    }

    /// The guest has called `finish`: nothing more will come.
    pub(crate) fn is_finished(&self) -> bool {
        !matches!(self.0.lock().end, End::Open | End::Broken)
    }

    /// The reader has gone before it had the whole body.
    pub(crate) fn is_refused(&self) -> bool {
        self.0.lock().is_refused()
    }

    /// The guest has broken it off, and was the first to end it.
    pub(crate) fn is_broken(&self) -> bool {
        matches!(self.0.lock().end, End::Broken)
    }

    /// The body is the client's from now on: it may buffer as much as a client that reads slowly makes it.
    pub(crate) fn set(&self) {
        self.0.lock().is_read();
    }

    /// A handle that does not keep the body.
    pub(crate) fn downgrade(&self) -> WeakBodyWatch {
        WeakBodyWatch(Arc::downgrade(&self.0))
    }

    /// Bytes that the guest has written so far.
    pub(crate) fn written(&self) -> u64 {
        self.0.lock().written
    }

    /// Wakes the reader if something waits for it, and says whether something does.
    pub(crate) fn send_out(&self) -> bool {
        let mut state = self.0.lock();
        if state.buffered == 0 {
            return false;
        }
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
        true
    }

    /// From now on bytes are counted but not kept: for responses without a body on the wire.
    pub(crate) fn discard(&self) {
        let mut state = self.0.lock();
        state.discard = true;
        state.clear();
        let writers = state.writers.take();
        drop(state);
        writers.wake();
    }

    /// The reader's end. To be taken once.
    pub(crate) fn reader(&self) -> GuestBody {
        GuestBody(Content::Pipe(Arc::clone(&self.0)))
    }
}

/// A [`BodyWatch`] of a body that may be gone.
pub(crate) struct WeakBodyWatch(Weak<Pipe>);

impl WeakBodyWatch {
    pub(crate) fn upgrade(&self) -> Option<BodyWatch> {
        self.0.upgrade().map(BodyWatch)
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.0.strong_count() == 0
    }
}

/// The guest's end: the `outgoing-body` resource. Dropped without [`finish`](Self::finish), it breaks the body.
pub(crate) struct BodyWriter {
    pipe: Arc<Pipe>,
    stream_taken: bool,
}

impl BodyWriter {
    /// A new body that must become `expected` bytes long, if given. What it buffers is charged to `budget` until it is set.
    pub(crate) fn new(expected: Option<u64>, budget: &Budget) -> Self {
        Self::with(expected, budget, false)
    }

    /// The same, of which each write goes out at once: those of requests, to which nobody calls [`BodyWatch::send_out`].
    pub(crate) fn eager(expected: Option<u64>, budget: &Budget) -> Self {
        Self::with(expected, budget, true)
    }

    fn with(expected: Option<u64>, budget: &Budget, eager: bool) -> Self {
        let state = State {
            pieces: VecDeque::new(),
            tail: BytesMut::new(),
            buffered: 0,
            written: 0,
            expected,
            discard: false,
            unsent: Some(budget.clone()),
            end: End::Open,
            eager,
            closed: false,
            reader: None,
            writers: Wakers::default(),
        };
        Self { pipe: Arc::new(Pipe { state: Mutex::new(state) }), stream_taken: false }
    }

    pub(crate) fn watch(&self) -> BodyWatch {
        BodyWatch(Arc::clone(&self.pipe))
    }

    /// The stream to write to; it can be had once.
    pub(crate) fn stream(&mut self) -> Option<BodyStream> {
        if std::mem::replace(&mut self.stream_taken, true) {
            return None;
        }
        Some(BodyStream(Arc::clone(&self.pipe)))
    }

    /// Ends the body in order.
    ///
    /// # Errors
    /// The number of bytes written, if it is not what `content-length` promised; the body is broken then, unless it is a response with too
    /// many, which has been cut to its length.
    pub(crate) fn finish(self, mut trailers: Option<HeaderMap>) -> Result<(), u64> {
        let state = self.pipe.lock();
        let written = state.written;
        // A response to HEAD promises a length and sends nothing (RFC 9110 section 9.3.2).
        let short = state.expected.is_some_and(|expected| expected != written) && !state.discard;
        drop(state);
        if short {
            return Err(written); // dropping `self` breaks the body
        }
        if let Some(trailers) = &mut trailers {
            hop_by_hop::clean_trailers(trailers);
        }
        self.pipe.end(End::Finished(trailers));
        Ok(())
    }
}

impl Drop for BodyWriter {
    fn drop(&mut self) {
        self.pipe.end(End::Broken);
    }
}

/// The `output-stream` of an outgoing body.
///
/// What is written or flushed goes out when the guest waits, at the next tick, when it ends, or when 64 KiB have gathered:
/// a guest that writes in small pieces does not pay a thread switch for each (see `answer.rs`).
#[derive(Clone)]
pub(crate) struct BodyStream(Arc<Pipe>);

#[wasmtime_wasi::async_trait]
impl Pollable for BodyStream {
    async fn ready(&mut self) {
        std::future::poll_fn(|cx| {
            let mut state = self.0.lock();
            if state.closed || state.is_overrun() || state.poll_room(cx).is_ready() {
                return Poll::Ready(());
            }
            watch::note(WaitsFor::Client);
            Poll::Pending
        })
        .await;
    }
}

#[wasmtime_wasi::async_trait]
impl OutputStream for BodyStream {
    fn write(&mut self, mut bytes: Bytes) -> StreamResult<()> {
        let mut state = self.0.lock();
        if state.is_shut() {
            return Err(StreamError::Closed);
        }
        if bytes.len() > state.room() {
            return Err(StreamError::trap("write exceeds what check-write permitted"));
        }
        let promised = state.expected.map_or(u64::MAX, |expected| expected.saturating_sub(state.written));
        state.written += bytes.len() as u64;
        let is_overrun = state.is_overrun();
        if is_overrun && !state.eager {
            bytes.truncate(promised as usize); // smaller than the length, which is a usize
        } else if is_overrun {
            // Who asks for something else than it said does not get an answer to the half of it.
            bytes.clear();
            state.end = End::Broken;
        }
        if !state.discard && !bytes.is_empty() {
            state.push(bytes);
        }
        let result = if is_overrun { Err(state.size_error()) } else { Ok(()) };
        let reader = if state.eager || !state.has_room() { state.reader.take() } else { None };
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
        result
    }

    fn flush(&mut self) -> StreamResult<()> {
        if self.0.lock().is_shut() { Err(StreamError::Closed) } else { Ok(()) }
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        let state = self.0.lock();
        match state.is_shut() {
            true => Err(StreamError::Closed),
            false if state.has_room() => Ok(state.room()),
            false => Ok(0),
        }
    }

    async fn blocking_write_and_flush(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.ready().await;
        self.write(bytes)
    }
}

/// A guest's response body, as the server reads it. It ends in order only if the guest finished it; if the guest
/// trapped, was cut or forgot it, the last frame is an error and the connection must not look complete.
pub struct GuestBody(Content);

enum Content {
    Pipe(Arc<Pipe>),
    /// Nothing on the wire, whatever the guest writes. The length is what a `GET` would have had, where known.
    Nothing(Option<u64>),
}

impl GuestBody {
    /// A body without bytes. `length` is announced but not sent, as for HEAD.
    pub(crate) fn nothing(length: Option<u64>) -> Self {
        Self(Content::Nothing(length))
    }
}

impl std::fmt::Debug for GuestBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GuestBody")
    }
}

impl Body for GuestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Content::Pipe(pipe) = &self.0 else { return Poll::Ready(None) };
        let mut state = pipe.lock();
        state.is_read();
        if let Some(bytes) = state.pop() {
            let writers = if state.has_room() { state.writers.take() } else { Wakers::default() };
            drop(state);
            writers.wake();
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        match std::mem::replace(&mut state.end, End::Told) {
            End::Open => {
                state.end = End::Open;
                if !state.reader.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                    state.reader = Some(cx.waker().clone());
                }
                Poll::Pending
            }
            End::Finished(Some(trailers)) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            End::Finished(None) | End::Told => Poll::Ready(None),
            End::Broken => {
                state.end = End::Broken; // it does not count as complete
                Poll::Ready(Some(Err("the guest did not finish its body".into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Content::Nothing(length) => length.is_none(),
            Content::Pipe(pipe) => {
                let state = pipe.lock();
                state.buffered == 0 && matches!(state.end, End::Finished(None) | End::Told)
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Content::Nothing(length) => SizeHint::with_exact(length.unwrap_or(0)),
            Content::Pipe(pipe) => {
                let state = pipe.lock();
                let mut hint = SizeHint::new();
                match state.end {
                    End::Finished(None) => hint.set_exact(state.buffered as u64),
                    _ => hint.set_lower(state.buffered as u64),
                }
                hint
            }
        }
    }
}

impl Drop for GuestBody {
    fn drop(&mut self) {
        let Content::Pipe(pipe) = &self.0 else { return };
        let mut state = pipe.lock();
        state.closed = true;
        state.clear();
        let writers = state.writers.take();
        drop(state);
        writers.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::wakers::tests::Counts;

    /// The writer of a response that has been set.
    fn writer(expected: Option<u64>) -> BodyWriter {
        let writer = BodyWriter::new(expected, &Budget::new());
        writer.watch().set();
        writer
    }

    fn next(body: &mut GuestBody) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop()))
    }

    fn data(body: &mut GuestBody) -> Bytes {
        match next(body) {
            Poll::Ready(Some(Ok(frame))) => frame.into_data().expect("a data frame"),
            other => panic!("expected data, got {other:?}"),
        }
    }

    #[test]
    fn a_finished_body_knows_its_length_and_ends_in_order() {
        let mut writer = writer(None);
        let mut body = writer.watch().reader();
        let mut stream = writer.stream().expect("first stream");
        assert!(writer.stream().is_none());
        stream.write("Hello ".into()).expect("room");
        stream.write("World!".into()).expect("room");
        assert_eq!(body.size_hint().exact(), None);
        drop(stream);
        writer.finish(None).expect("no length was promised");
        assert_eq!(body.size_hint().exact(), Some(12));
        assert_eq!(data(&mut body), "Hello ");
        assert_eq!(data(&mut body), "World!");
        assert!(body.is_end_stream());
        assert!(matches!(next(&mut body), Poll::Ready(None)));
    }

    #[test]
    fn a_body_that_is_dropped_unfinished_ends_with_an_error() {
        let mut writer = writer(None);
        let mut body = writer.watch().reader();
        writer.stream().expect("first stream").write("half".into()).expect("room");
        drop(writer);
        assert_eq!(data(&mut body), "half");
        assert!(!body.is_end_stream());
        assert!(matches!(next(&mut body), Poll::Ready(Some(Err(_)))));
    }

    #[test]
    fn who_ends_a_body_first_has_ended_it() {
        let (by_guest, by_reader) = (writer(None), writer(None));
        let [by_guest_watch, by_reader_watch] = [&by_guest, &by_reader].map(BodyWriter::watch);
        let reader = by_guest_watch.reader();
        drop(by_guest);
        drop(reader);
        drop(by_reader_watch.reader());
        drop(by_reader);
        assert_eq!([&by_guest_watch, &by_reader_watch].map(BodyWatch::is_broken), [true, false]);
        assert_eq!([&by_guest_watch, &by_reader_watch].map(BodyWatch::is_complete), [false; 2]);
    }

    #[test]
    fn a_body_shorter_than_its_content_length_is_broken() {
        let mut writer = writer(Some(5));
        let mut body = writer.watch().reader();
        writer.stream().expect("first stream").write("four".into()).expect("room");
        assert_eq!(writer.finish(None), Err(4));
        assert_eq!(data(&mut body), "four");
        assert!(matches!(next(&mut body), Poll::Ready(Some(Err(_)))));
    }

    #[test]
    fn a_body_longer_than_its_content_length_is_cut() {
        let mut writer = writer(Some(3));
        let mut body = writer.watch().reader();
        let mut stream = writer.stream().expect("first stream");
        assert!(matches!(stream.write("four".into()), Err(StreamError::LastOperationFailed(_))));
        assert!(matches!(stream.write("more".into()), Err(StreamError::Closed)), "WASI 0.2, `stream-error`");
        assert!(matches!(stream.check_write(), Err(StreamError::Closed)));
        drop(stream);
        assert_eq!(writer.finish(None), Err(4));
        assert_eq!(data(&mut body), "fou");
        assert!(matches!(next(&mut body), Poll::Ready(None)));
    }

    #[test]
    fn a_request_longer_than_its_content_length_is_broken() {
        let mut writer = BodyWriter::eager(Some(3), &Budget::new());
        let mut body = writer.watch().reader();
        let mut stream = writer.stream().expect("first stream");
        stream.write("t".into()).expect("room");
        assert!(matches!(stream.write("hree".into()), Err(StreamError::LastOperationFailed(_))));
        drop(stream);
        assert_eq!(writer.finish(None), Err(5));
        assert_eq!(data(&mut body), "t");
        assert!(matches!(next(&mut body), Poll::Ready(Some(Err(_)))));
    }

    #[test]
    fn the_guest_waits_for_a_slow_reader() {
        let mut writer = writer(None);
        let mut body = writer.watch().reader();
        let mut stream = writer.stream().expect("first stream");
        stream.write(vec![0; HIGH].into()).expect("room");
        assert_eq!(stream.check_write().expect("open"), 0);
        assert_eq!(data(&mut body).len(), HIGH);
        assert_eq!(stream.check_write().expect("open"), CAPACITY);
        drop(body);
        assert!(matches!(stream.check_write(), Err(StreamError::Closed)));
    }

    #[test]
    fn small_pieces_are_copied_together() {
        let mut writer = writer(None);
        let mut body = writer.watch().reader();
        let mut stream = writer.stream().expect("first stream");
        for _ in 0..15 {
            stream.write(vec![1; 4096].into()).expect("room");
        }
        assert_eq!(data(&mut body).len(), 4096);
        assert_eq!(data(&mut body).len(), 14 * 4096);
    }

    #[test]
    fn a_body_with_all_its_bytes_is_complete_before_it_is_finished() {
        let mut writer = writer(Some(5));
        let watch = writer.watch();
        let mut body = watch.reader();
        let mut stream = writer.stream().expect("first stream");
        stream.write("Hel".into()).expect("room");
        assert!(!watch.is_complete());
        stream.write("lo".into()).expect("room");
        assert!(watch.is_complete() && !watch.is_finished());
        assert_eq!(data(&mut body), "Hel");
        drop(body); // hyper has what it needs
        stream.flush().expect("nothing is lost");
        assert!(stream.check_write().expect("nothing is lost") > 0);
        assert!(matches!(stream.write("!".into()), Err(StreamError::LastOperationFailed(_))));
        assert!(!watch.is_refused());
        assert_eq!(writer.finish(None), Err(6), "five bytes were promised");
        assert!(watch.is_finished());
    }

    #[test]
    fn a_body_with_all_its_bytes_is_not_broken_by_a_guest_that_forgets_to_finish_it() {
        let mut writer = writer(Some(5));
        let mut body = writer.watch().reader();
        writer.stream().expect("first stream").write("Hello".into()).expect("room");
        drop(writer);
        assert_eq!(data(&mut body), "Hello");
        assert!(matches!(next(&mut body), Poll::Ready(None)));
    }

    #[test]
    fn bodies_that_are_not_set_share_a_budget() {
        let budget = Budget::new();
        let mut writers: Vec<_> = (0..100).map(|_| BodyWriter::new(None, &budget)).collect();
        let mut streams: Vec<_> = writers.iter_mut().map(|writer| writer.stream().expect("first stream")).collect();
        let mut written = 0;
        for stream in &mut streams {
            let room = stream.check_write().expect("open");
            stream.write(vec![0; room].into()).expect("room");
            written += room;
        }
        assert_eq!(written, UNSENT);
        assert_eq!(streams[99].check_write().expect("open"), 0);
        streams.truncate(1);
        writers.truncate(1);
        assert_eq!(budget.left(), UNSENT - CAPACITY, "what is dropped is free again");
        writers[0].watch().set();
        assert_eq!(budget.left(), UNSENT, "what is set has a reader");
    }

    /// `act` does something to bodies that have used up the budget of all.
    fn expect_woken(what: &str, act: impl FnOnce(Vec<(BodyWriter, GuestBody)>)) {
        let budget = Budget::new();
        let sent = (0..UNSENT / HIGH).map(|_| {
            let mut writer = BodyWriter::eager(None, &budget);
            writer.stream().expect("first stream").write(vec![0; HIGH].into()).expect("room");
            let body = writer.watch().reader();
            (writer, body)
        });
        let sent = sent.collect();
        let counts = Arc::<Counts>::default();
        let mut stream = BodyWriter::eager(None, &budget).stream().expect("first stream");
        let mut ready = stream.ready();
        let waker = Waker::from(Arc::clone(&counts));
        let mut cx = Context::from_waker(&waker);
        assert!(ready.as_mut().poll(&mut cx).is_pending(), "{what}");
        act(sent);
        assert_eq!(counts.0.load(Ordering::SeqCst), 1, "{what}");
        assert!(ready.as_mut().poll(&mut cx).is_ready(), "{what}");
    }

    #[test]
    fn who_waits_for_the_budget_of_all_is_woken_by_what_others_give_back() {
        expect_woken("read", |mut sent| assert_eq!(data(&mut sent[0].1).len(), HIGH));
        expect_woken("refused", |mut sent| drop(sent.remove(0).1));
        expect_woken("discarded", |sent| sent[0].0.watch().discard());
        expect_woken("set", |sent| sent[0].0.watch().set());
    }
}
