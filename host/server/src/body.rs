//! Bodies of requests and responses, for code that blocks: read as `std::io::Read` or chunk by chunk, written from bytes, from
//! a reader or by a closure that gets a `std::io::Write`. Nothing here is ever held whole, and nothing blocks inside hyper: a
//! reader or closure runs on the worker that handled the request (`outgoing.rs` is hyper's end of it).

use std::fmt;
use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

use crate::counts::Event;
use crate::limits::Limits;
use crate::link::Open;
use crate::outgoing::Channel;
use crate::slot::Slot;
use crate::timer::Sleep;
use crate::upload::{Upload, Wait, kind_of};
use crate::wait::{flush, wait};
use crate::workers::Workers;

/// The error of a foreign body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What a [`BodyWriter`] collects before it hands a chunk over, in bytes.
const CHUNK: usize = 32 * 1024;

/// The body of a request or a response.
pub struct Body {
    kind: Kind,
    trailers: Option<Box<HeaderMap>>,
}

enum Kind {
    Bytes(Bytes),
    Incoming(Box<IncomingBody>),
    Reader(Box<dyn Read + Send>),
    Stream(Box<Writing>),
    Foreign(Pin<Box<Foreign>>),
}

type Writing = dyn FnOnce(&mut BodyWriter) -> io::Result<()> + Send;
pub(crate) type Foreign = dyn http_body::Body<Data = Bytes, Error = BoxError> + Send;

/// What a response's body is to the worker that sends it.
pub(crate) enum Source {
    Bytes(Bytes),
    /// hyper pulls it.
    Foreign(Pin<Box<Foreign>>),
    /// The worker pumps it.
    Pump(Box<Writing>),
}

impl Body {
    /// All of it is known.
    ///
    /// ```
    /// use astra_server::Body;
    ///
    /// let _string = Body::new("Hello world!");
    /// let _bytes = Body::new(vec![0, 1, 0, 1, 0]);
    /// ```
    pub fn new(data: impl Into<Bytes>) -> Self {
        Kind::Bytes(data.into()).into()
    }

    /// No bytes at all.
    pub fn empty() -> Self {
        Self::new(Bytes::new())
    }

    /// Reads the body from `reader` while it is sent. If a read fails the connection is cut, so that the client does not take
    /// what it got for the whole.
    ///
    /// ```no_run
    /// use astra_server::Body;
    ///
    /// fn body() -> std::io::Result<Body> {
    ///     Ok(Body::wrap_reader(std::fs::File::open("index.html")?))
    /// }
    /// ```
    pub fn wrap_reader<R: Read + Send + 'static>(reader: R) -> Self {
        Kind::Reader(Box::new(reader)).into()
    }

    /// Lets `write` write the body, after the head was sent. What it writes is collected until it flushes, or about 32 KiB are
    /// together; it waits when the client does not keep up. If it fails or panics the connection is cut.
    ///
    /// ```
    /// use astra_server::{Body, ResponseBuilder};
    /// use std::io::Write;
    ///
    /// let events = ResponseBuilder::new().header("content-type", "text/event-stream").body(Body::stream(|writer| {
    ///     for n in 0..3 {
    ///         write!(writer, "data: {n}\n\n")?;
    ///         writer.flush()?;
    ///     }
    ///     Ok(())
    /// }));
    /// # assert!(events.is_ok());
    /// ```
    pub fn stream(write: impl FnOnce(&mut BodyWriter) -> io::Result<()> + Send + 'static) -> Self {
        Kind::Stream(Box::new(write)).into()
    }

    /// A body of another crate, pulled as the client takes it. It must not block.
    pub fn wrap<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        use http_body_util::BodyExt as _;
        Kind::Foreign(Box::pin(body.map_err(Into::into))).into()
    }

    /// Sends `trailers` after the body. On HTTP/1.1 a client gets them only if it asked for them (`TE: trailers`), and a header
    /// field `Trailer` that names them is added for you (RFC 9110 section 6.5).
    #[must_use]
    pub fn with_trailers(mut self, trailers: HeaderMap) -> Self {
        self.trailers = Some(Box::new(trailers));
        self
    }

    /// Reads the body, waiting for what has not arrived.
    ///
    /// ```no_run
    /// use astra_server::{Body, Request, Response};
    /// use std::io::Read;
    ///
    /// fn handle(mut request: Request) -> std::io::Result<Response> {
    ///     let mut text = String::new();
    ///     request.body_mut().reader().take(1024).read_to_string(&mut text)?;
    ///     Ok(Response::new(Body::new(text)))
    /// }
    /// ```
    pub fn reader(&mut self) -> BodyReader<'_> {
        BodyReader { body: self, chunk: Bytes::new() }
    }

    /// The trailers, once the body was read to its end; `None` before, or if there are none.
    pub fn trailers(&mut self) -> Option<HeaderMap> {
        self.trailers.take().map(|trailers| *trailers)
    }

    pub(crate) fn incoming(body: Incoming, expects_continue: bool, slot: Arc<Slot>) -> Self {
        let link = &slot.link;
        let body = IncomingBody {
            open: Some(link.keep_open()),
            left: link.limits.max_body,
            workers: Arc::downgrade(&link.workers),
            limits: link.limits.clone(),
            body: Upload::new(body, expects_continue, link.clone()),
            stall: None,
            waited: Duration::ZERO,
            slot,
        };
        Kind::Incoming(Box::new(body)).into()
    }

    /// Ready: the handler that will read it may start, or the request must be refused.
    pub(crate) fn poll_start(&mut self, wait: &mut Wait, cx: &mut Context<'_>) -> Poll<Result<(), StatusCode>> {
        let Kind::Incoming(incoming) = &mut self.kind else { return Poll::Ready(Ok(())) };
        let may = ready!(incoming.body.poll_start(wait, cx));
        if let Some(whole) = incoming.body.take_whole(incoming.left) {
            self.kind = Kind::Bytes(whole);
        }
        Poll::Ready(may)
    }

    /// Splits a response's body into who moves it and what follows it.
    pub(crate) fn into_source(self) -> (Source, Option<HeaderMap>) {
        let source = match self.kind {
            Kind::Bytes(bytes) => Source::Bytes(bytes),
            Kind::Foreign(body) => Source::Foreign(body),
            Kind::Stream(write) => Source::Pump(write),
            Kind::Reader(mut reader) => Source::Pump(Box::new(move |writer| writer.copy(&mut reader))),
            // A request's body sent back: we wait for it as its reader would.
            Kind::Incoming(body) => {
                let mut body = Self::from(Kind::Incoming(body));
                Source::Pump(Box::new(move |writer| body.try_for_each(|chunk| writer.send(chunk?))))
            }
        };
        (source, self.trailers.map(|trailers| *trailers))
    }
}

impl From<Kind> for Body {
    fn from(kind: Kind) -> Self {
        Self { kind, trailers: None }
    }
}

impl<T> From<T> for Body
where
    Bytes: From<T>,
{
    fn from(data: T) -> Self {
        Self::new(data)
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.kind {
            Kind::Bytes(bytes) => return f.debug_tuple("Body").field(&bytes.len()).finish(),
            Kind::Incoming(_) => "incoming",
            Kind::Reader(_) => "reader",
            Kind::Stream(_) => "stream",
            Kind::Foreign(_) => "foreign",
        };
        f.debug_tuple("Body").field(&kind).finish()
    }
}

/// Chunks as they arrive; waits for each.
impl Iterator for Body {
    type Item = io::Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let frame = match wait(poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut *self), cx)), None) {
                Ok(frame) => frame?,
                Err(interrupted) => return Some(Err(interrupted.into())),
            };
            match frame.map(Frame::into_data) {
                Ok(Ok(chunk)) if chunk.is_empty() => {}
                Ok(Ok(chunk)) => return Some(Ok(chunk)),
                Ok(Err(frame)) => self.trailers = frame.into_trailers().ok().map(Box::new),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// For code that is asynchronous itself. A reader is read inside `poll_frame`, and a closure cannot be polled at all.
impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let chunk = match &mut self.kind {
            Kind::Bytes(bytes) if bytes.is_empty() => return Poll::Ready(None),
            Kind::Bytes(bytes) => Ok(std::mem::take(bytes)),
            Kind::Incoming(body) => return body.poll_frame(cx),
            Kind::Foreign(body) => return body.as_mut().poll_frame(cx).map_err(io::Error::other),
            Kind::Reader(reader) => {
                let mut chunk = vec![0; CHUNK];
                match reader.read(&mut chunk) {
                    Ok(0) => return Poll::Ready(None),
                    Ok(n) => {
                        chunk.truncate(n);
                        Ok(chunk.into())
                    }
                    Err(error) => Err(error),
                }
            }
            Kind::Stream(_) => {
                Err(io::Error::new(io::ErrorKind::Unsupported, "a body that a closure writes cannot be polled"))
            }
        };
        Poll::Ready(Some(chunk.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Bytes(bytes) => bytes.is_empty(),
            Kind::Incoming(body) => body.body.is_end_stream(),
            Kind::Foreign(body) => body.is_end_stream(),
            Kind::Reader(_) | Kind::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Bytes(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Incoming(body) => body.body.size_hint(),
            Kind::Foreign(body) => body.size_hint(),
            Kind::Reader(_) | Kind::Stream(_) => SizeHint::default(),
        }
    }
}

/// The size of what is held of a body, so many bytes, and of the rest, of which there is a hint.
pub(crate) fn after(held: usize, rest: &SizeHint) -> SizeHint {
    let held = held as u64;
    let mut hint = SizeHint::new();
    if let Some(upper) = rest.upper() {
        hint.set_upper(upper.saturating_add(held));
    }
    hint.set_lower(rest.lower().saturating_add(held));
    hint
}

/// A request's body: counted against its limit, and given up when the client stalls.
struct IncomingBody {
    body: Upload,
    slot: Arc<Slot>,
    /// Until its end: what the connection reads is this body, whatever has been answered.
    open: Option<Open>,
    left: u64,
    limits: Arc<Limits>,
    stall: Option<Stall>,
    /// How long its handler has waited for it, all in all.
    waited: Duration,
    workers: Weak<Workers>,
}

impl IncomingBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Poll::Ready(frame) = self.body.poll_frame(cx) {
            if let Some(stall) = self.stall.take() {
                self.waited += stall.length();
            }
            let Some(frame) = frame else {
                self.open = None;
                return Poll::Ready(None);
            };
            let trailers = frame.as_ref().ok().and_then(Frame::trailers_ref);
            if trailers.is_some_and(|trailers| self.body.is_swallowed(trailers)) {
                let text = "the request body does not end as it must";
                return Poll::Ready(Some(Err(self.broken(io::ErrorKind::InvalidData, text))));
            }
            let length = frame.as_ref().ok().and_then(Frame::data_ref).map_or(0, |data| data.len() as u64);
            return Poll::Ready(Some(match self.left.checked_sub(length) {
                Some(left) => {
                    self.left = left;
                    frame.map_err(|error| self.broken(kind_of(&error), error))
                }
                None => {
                    self.slot.too_large.store(true, Ordering::SeqCst);
                    Err(io::Error::new(io::ErrorKind::FileTooLarge, "the request body is larger than allowed"))
                }
            }));
        }
        let patience = self.patience();
        let stall = self.stall.get_or_insert_with(|| Stall::new(self.workers.clone(), patience));
        ready!(stall.sleep.as_mut().poll(cx));
        if !self.slot.too_slow.swap(true, Ordering::SeqCst) {
            self.slot.link.note(Event::BodyTimeout);
        }
        let text = "the client stopped sending the request body, or sends it too slowly";
        Poll::Ready(Some(Err(io::Error::new(io::ErrorKind::TimedOut, text))))
    }

    /// An error of the body's framing, or one that ends it early.
    fn broken(&self, kind: io::ErrorKind, error: impl Into<BoxError>) -> io::Error {
        if kind == io::ErrorKind::InvalidData {
            self.slot.malformed.store(true, Ordering::SeqCst);
        }
        io::Error::new(kind, error)
    }

    /// How long the handler may wait for the next bytes: not longer than they may stand still, nor than all that came so far allows.
    fn patience(&self) -> Duration {
        let received = self.limits.max_body - self.left;
        let allowed = self.limits.body_rate.allowed(received);
        self.limits.body_read_timeout.min(allowed.saturating_sub(self.waited))
    }
}

/// The handler waits for the next bytes.
struct Stall {
    since: Instant,
    until: Instant,
    sleep: Pin<Box<Sleep>>,
}

impl Stall {
    fn new(workers: Weak<Workers>, patience: Duration) -> Self {
        let since = Instant::now();
        let until = since + patience;
        Self { since, until, sleep: Box::pin(Sleep::until(workers, until)) }
    }

    /// How long it has waited. Of one that asks again only after the end of its patience nobody knows: it was not waiting then.
    fn length(&self) -> Duration {
        let now = Instant::now();
        if now < self.until { now - self.since } else { Duration::ZERO }
    }
}

/// Reads a [`Body`] as `std::io::Read`.
#[derive(Debug)]
pub struct BodyReader<'a> {
    body: &'a mut Body,
    chunk: Bytes,
}

impl Read for BodyReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.chunk.is_empty() {
            self.chunk = match self.body.next() {
                Some(chunk) => chunk?,
                None => return Ok(0),
            };
        }
        let length = buffer.len().min(self.chunk.len());
        self.chunk.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

impl Drop for BodyReader<'_> {
    /// What was received and not read is there for the next reader.
    fn drop(&mut self) {
        if !self.chunk.is_empty() {
            let rest = std::mem::take(&mut self.chunk);
            let body = std::mem::take(self.body);
            *self.body = Body { trailers: None, kind: Kind::Reader(Box::new(rest.reader().chain(OwnedReader(body)))) };
        }
    }
}

struct OwnedReader(Body);

impl Read for OwnedReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.reader().read(buffer)
    }
}

/// Writes a response's body; [`Body::stream`] makes one. `flush` sends what was written so far.
pub struct BodyWriter {
    channel: Arc<Channel>,
    buffer: BytesMut,
    trailers: Option<HeaderMap>,
}

impl BodyWriter {
    pub(crate) fn new(channel: Arc<Channel>) -> Self {
        Self { channel, buffer: BytesMut::new(), trailers: None }
    }

    /// Sends `trailers` at the end; see [`Body::with_trailers`], but a `Trailer` header field is up to you.
    pub fn trailers(&mut self, trailers: HeaderMap) {
        self.trailers = Some(trailers);
    }

    /// Hands a chunk over without copying it, waiting for room.
    ///
    /// # Errors
    ///
    /// If the client is gone.
    pub fn send(&mut self, chunk: Bytes) -> io::Result<()> {
        self.send_buffer()?;
        self.hand_over(chunk)
    }

    fn send_buffer(&mut self) -> io::Result<()> {
        let chunk = self.buffer.split().freeze();
        self.hand_over(chunk)
    }

    fn hand_over(&mut self, chunk: Bytes) -> io::Result<()> {
        if chunk.is_empty() {
            return Ok(());
        }
        wait(poll_fn(|cx| self.channel.poll_room(cx)), None)??;
        self.channel.push(chunk);
        Ok(())
    }

    fn copy(&mut self, reader: &mut dyn Read) -> io::Result<()> {
        loop {
            let mut chunk = BytesMut::zeroed(CHUNK);
            match reader.read(&mut chunk) {
                Ok(0) => return Ok(()),
                Ok(n) => {
                    chunk.truncate(n);
                    self.send(chunk.freeze())?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The body is whole.
    pub(crate) fn finish(mut self, trailers: Option<HeaderMap>) -> io::Result<()> {
        self.send_buffer()?;
        self.channel.finish(self.trailers.take().or(trailers));
        Ok(())
    }
}

impl Write for BodyWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(data);
        if self.buffer.len() >= CHUNK {
            self.send_buffer()?;
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send_buffer()?;
        flush();
        self.channel.check()
    }
}

impl Drop for BodyWriter {
    /// Unless it was finished, the body is not whole and the connection must say so.
    fn drop(&mut self) {
        self.channel.abandon();
    }
}

impl fmt::Debug for BodyWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyWriter").field("buffered", &self.buffer.len()).finish_non_exhaustive()
    }
}
