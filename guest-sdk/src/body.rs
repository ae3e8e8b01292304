//! Request and response bodies: what a guest reads, and what it gives to be sent.
//!
//! A body is read by whoever holds it, at most once, and never held whole unless asked for. What the host sends and receives is in
//! `wasm/`; this file does not know it beyond "something to read from".

use std::{
    borrow::BorrowMut,
    error::Error,
    fmt,
    io::{self, BufRead, Read, Write},
};

use bytes::{Buf, Bytes};
use http::{HeaderMap, StatusCode};

use crate::{FetchError, response::report};

/// How much is read at once, in bytes: what the host moves in one call.
pub(crate) const CHUNK: usize = 64 * 1024;

/// Small writes are collected up to so many bytes. More would make a small guest grow its memory for nothing.
const WRITE_BUFFER: usize = 16 * 1024;

/// A request or response body.
///
/// To read one: [`reader`](Self::reader) is [`Read`] and [`BufRead`]; [`chunks`](Self::chunks) iterates (and so does `for chunk in body`);
/// [`bytes`](Self::bytes), [`text`](Self::text) and `json` (feature `json`) collect it, up to a limit.
///
/// ```
/// # use guest_sdk::Body;
/// let mut body = Body::new("one\ntwo\n");
/// assert_eq!(body.text()?, "one\ntwo\n");
/// # Ok::<(), guest_sdk::BodyError>(())
/// ```
#[derive(Default)]
pub struct Body {
    /// What comes next: the whole body, or what was read ahead from `source`.
    pub(crate) bytes: Bytes,
    pub(crate) source: Option<Box<dyn Source>>,
    trailers: HeaderMap,
}

/// Where the bytes of a body come from, if they are not in memory. A trait and not an enum, so that a guest is linked only with the kinds
/// it uses.
pub(crate) trait Source {
    /// The next bytes, at least one; none at the end.
    fn read(&mut self) -> io::Result<Bytes>;

    /// Writes all of it as it comes.
    fn send(&mut self, to: &mut dyn Write) -> io::Result<()> {
        loop {
            let chunk = self.read()?;
            if chunk.is_empty() {
                return Ok(());
            }
            to.write_all(&chunk)?;
        }
    }

    /// The same, to the host.
    #[cfg(target_family = "wasm")]
    fn pass_on(&mut self, to: &mut crate::wasm::Outgoing<'_>) -> io::Result<()> {
        self.send(to)
    }

    /// How it is to be read by who must not wait for it alone.
    #[cfg(target_family = "wasm")]
    fn kind(&mut self) -> Kind<'_> {
        Kind::Read
    }

    /// What follows the end.
    fn trailers(&mut self) -> io::Result<HeaderMap> {
        Ok(HeaderMap::new())
    }
}

/// What is between an outgoing request and where its body comes from.
#[cfg(target_family = "wasm")]
pub(crate) enum Kind<'a> {
    /// A reader.
    Read,
    /// A function that writes all of it.
    Write,
    /// Another host resource, which can be waited for together with others.
    Incoming(&'a mut crate::wasm::Incoming),
}

impl Body {
    /// How many bytes [`bytes`](Self::bytes), [`text`](Self::text) and `json` accept: 2 MiB.
    pub const DEFAULT_LIMIT: usize = 2 * 1024 * 1024;

    /// A body of these bytes. A response with it gets a `content-length`.
    pub fn new(data: impl Into<Bytes>) -> Self {
        Self { bytes: data.into(), ..Self::default() }
    }

    /// A body without any bytes.
    pub fn empty() -> Self {
        Self::default()
    }

    /// A body that is read from `reader` while it is sent.
    ///
    /// When `reader` fails, the response is cut: the client sees that it is not complete.
    pub fn wrap_reader(reader: impl Read + 'static) -> Self {
        Self::from_source(FromReader(reader))
    }

    /// A body that `write` writes, after the response head was sent.
    ///
    /// Small writes are collected; `flush` sends what there is, so a server-sent event is written and then flushed. When the client is
    /// gone, writing fails. When `write` returns an error, the response is cut: the client sees that it is not complete.
    ///
    /// A body made like this can be read too (in a test, say): `write` then runs to its end first, into memory.
    ///
    /// ```
    /// # use guest_sdk::{Body, ResponseBuilder};
    /// let body = Body::stream(|writer| {
    ///     for n in 1..=3 {
    ///         write!(writer, "data: {n}\n\n")?;
    ///         writer.flush()?;
    ///     }
    ///     Ok(())
    /// });
    /// let response = ResponseBuilder::new().header("content-type", "text/event-stream").body(body);
    /// # assert_eq!(response?.into_body().text()?.len(), 27);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stream(write: impl FnOnce(&mut dyn Write) -> io::Result<()> + 'static) -> Self {
        Self::stream_with_trailers(move |writer| write(writer).map(|()| HeaderMap::new()))
    }

    /// Like [`stream`](Self::stream), and what `write` returns is sent as trailers.
    ///
    /// HTTP/1.1 carries trailers only when the head named them in `trailer` and the client said `te: trailers`.
    pub fn stream_with_trailers(write: impl FnOnce(&mut dyn Write) -> io::Result<HeaderMap> + 'static) -> Self {
        Self::from_source(FromWriter { write: Some(write), trailers: HeaderMap::new() })
    }

    /// This body, followed by these trailers (and not by others it has).
    pub fn with_trailers(mut self, trailers: HeaderMap) -> Self {
        self.trailers = trailers;
        self
    }

    pub(crate) fn from_source(source: impl Source + 'static) -> Self {
        Self { source: Some(Box::new(source)), ..Self::default() }
    }

    /// The length in bytes, if it is known without reading.
    pub fn length(&self) -> Option<u64> {
        self.source.is_none().then_some(self.bytes.len() as u64)
    }

    /// This body as [`Read`] and [`BufRead`].
    pub fn reader(&mut self) -> Reader<&mut Self> {
        Reader(self)
    }

    /// Like [`reader`](Self::reader), for one that has to outlive the call: to wrap it and send it on, say.
    pub fn into_reader(self) -> Reader<Self> {
        Reader(self)
    }

    /// The chunks of this body, as they come: at most 64 KiB each, none empty.
    pub fn chunks(&mut self) -> Chunks<&mut Self> {
        Chunks(self)
    }

    /// All bytes of this body, up to [`DEFAULT_LIMIT`](Self::DEFAULT_LIMIT).
    ///
    /// # Errors
    ///
    /// The body is larger, or reading it failed (the client went away, say).
    pub fn bytes(&mut self) -> Result<Bytes, BodyError> {
        self.bytes_up_to(Self::DEFAULT_LIMIT)
    }

    /// All bytes of this body, up to `limit` bytes.
    ///
    /// # Errors
    ///
    /// See [`bytes`](Self::bytes).
    pub fn bytes_up_to(&mut self, limit: usize) -> Result<Bytes, BodyError> {
        let Some(first) = self.next_chunk().map_err(BodyError::Read)? else {
            return Ok(Bytes::new());
        };
        let mut all = Vec::new();
        let mut next = Some(first);
        while let Some(chunk) = next {
            if chunk.len() > limit - all.len() {
                return Err(BodyError::TooLarge { limit });
            }
            next = self.next_chunk().map_err(BodyError::Read)?;
            if all.is_empty() && next.is_none() {
                return Ok(chunk); // in one piece: no copy
            }
            all.extend_from_slice(&chunk);
        }
        Ok(all.into())
    }

    /// This body as UTF-8 text, up to [`DEFAULT_LIMIT`](Self::DEFAULT_LIMIT).
    ///
    /// # Errors
    ///
    /// See [`bytes`](Self::bytes); or it is not UTF-8.
    pub fn text(&mut self) -> Result<String, BodyError> {
        self.text_up_to(Self::DEFAULT_LIMIT)
    }

    /// This body as UTF-8 text, up to `limit` bytes.
    ///
    /// # Errors
    ///
    /// See [`text`](Self::text).
    pub fn text_up_to(&mut self, limit: usize) -> Result<String, BodyError> {
        let bytes = self.bytes_up_to(limit)?;
        String::from_utf8(bytes.into()).map_err(|error| BodyError::Invalid(error.into()))
    }

    /// This body, parsed as JSON, up to [`DEFAULT_LIMIT`](Self::DEFAULT_LIMIT).
    ///
    /// # Errors
    ///
    /// See [`bytes`](Self::bytes); or it is not what `T` expects.
    #[cfg(feature = "json")]
    pub fn json<T: serde::de::DeserializeOwned>(&mut self) -> Result<T, BodyError> {
        self.json_up_to(Self::DEFAULT_LIMIT)
    }

    /// This body, parsed as JSON, up to `limit` bytes.
    ///
    /// # Errors
    ///
    /// See [`json`](Self::json).
    #[cfg(feature = "json")]
    pub fn json_up_to<T: serde::de::DeserializeOwned>(&mut self, limit: usize) -> Result<T, BodyError> {
        let bytes = self.bytes_up_to(limit)?;
        serde_json::from_slice(&bytes).map_err(|error| BodyError::Invalid(error.into()))
    }

    /// The trailers that came after this body. What is still unread of it is discarded.
    ///
    /// # Errors
    ///
    /// Reading the rest failed.
    pub fn trailers(&mut self) -> io::Result<HeaderMap> {
        while self.next_chunk()?.is_some() {}
        self.take_trailers()
    }

    /// The trailers, once all of the body was read or sent.
    pub(crate) fn take_trailers(&mut self) -> io::Result<HeaderMap> {
        match &mut self.source {
            Some(source) if self.trailers.is_empty() => source.trailers(),
            _ => Ok(std::mem::take(&mut self.trailers)),
        }
    }

    /// The next bytes; `None` at the end.
    fn next_chunk(&mut self) -> io::Result<Option<Bytes>> {
        let available = self.fill()?.len();
        let chunk = self.bytes.split_to(available.min(CHUNK));
        Ok(Some(chunk).filter(|chunk| !chunk.is_empty()))
    }

    /// What can be had at once, waiting only if that is nothing; empty at the end.
    pub(crate) fn fill(&mut self) -> io::Result<&[u8]> {
        if self.bytes.is_empty()
            && let Some(source) = &mut self.source
        {
            self.bytes = source.read()?;
        }
        Ok(&self.bytes)
    }
}

struct FromReader<R>(R);

impl<R: Read> Source for FromReader<R> {
    fn read(&mut self) -> io::Result<Bytes> {
        let mut chunk = vec![0; CHUNK];
        let length = loop {
            match self.0.read(&mut chunk) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        chunk.truncate(length);
        Ok(chunk.into())
    }

    fn send(&mut self, to: &mut dyn Write) -> io::Result<()> {
        let sent = io::copy(&mut io::BufReader::with_capacity(CHUNK, &mut self.0), to);
        sent.inspect_err(failed).map(drop)
    }
}

struct FromWriter<F> {
    /// `None` once it ran.
    write: Option<F>,
    trailers: HeaderMap,
}

impl<F: FnOnce(&mut dyn Write) -> io::Result<HeaderMap>> Source for FromWriter<F> {
    fn read(&mut self) -> io::Result<Bytes> {
        let mut all = Vec::new();
        self.send(&mut all)?;
        Ok(all.into())
    }

    fn send(&mut self, to: &mut dyn Write) -> io::Result<()> {
        let Some(write) = self.write.take() else {
            return Ok(());
        };
        let mut to = io::BufWriter::with_capacity(WRITE_BUFFER, to);
        self.trailers = write(&mut to).inspect_err(failed)?;
        to.into_inner().map_err(io::IntoInnerError::into_error).map(drop)
    }

    #[cfg(target_family = "wasm")]
    fn kind(&mut self) -> Kind<'_> {
        Kind::Write
    }

    fn trailers(&mut self) -> io::Result<HeaderMap> {
        Ok(std::mem::take(&mut self.trailers))
    }
}

/// Tells the guest's author, unless it is only that the client went away.
pub(crate) fn failed(error: &io::Error) {
    if error.kind() != io::ErrorKind::BrokenPipe {
        report("the body was cut", error);
    }
}

/// Reads a body: see [`Body::reader`].
///
/// A body is not [`Read`] itself, because then `body.bytes()` would mean [`Read::bytes`].
#[derive(Debug)]
pub struct Reader<B>(B);

impl<B: BorrowMut<Body>> Read for Reader<B> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let length = available.len().min(into.len());
        into[..length].copy_from_slice(&available[..length]);
        self.consume(length);
        Ok(length)
    }
}

impl<B: BorrowMut<Body>> BufRead for Reader<B> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.0.borrow_mut().fill()
    }

    fn consume(&mut self, length: usize) {
        let bytes = &mut self.0.borrow_mut().bytes;
        bytes.advance(length.min(bytes.len()));
    }
}

/// Iterates over the chunks of a body: see [`Body::chunks`].
#[derive(Debug)]
pub struct Chunks<B>(B);

impl<B: BorrowMut<Body>> Iterator for Chunks<B> {
    type Item = io::Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.borrow_mut().next_chunk().transpose()
    }
}

impl IntoIterator for Body {
    type Item = io::Result<Bytes>;
    type IntoIter = Chunks<Self>;

    fn into_iter(self) -> Self::IntoIter {
        Chunks(self)
    }
}

impl<'a> IntoIterator for &'a mut Body {
    type Item = io::Result<Bytes>;
    type IntoIter = Chunks<Self>;

    fn into_iter(self) -> Chunks<&'a mut Body> {
        Chunks(self)
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("length", &self.length()).finish_non_exhaustive()
    }
}

/// Why a body could not be collected.
///
/// As the error of a handler it answers with its [`status`](Self::status), not with 500: it is the client's fault, or an upstream's.
#[derive(Debug)]
#[non_exhaustive]
pub enum BodyError {
    /// It is larger than the limit.
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// Reading failed: the client went away, or took too long.
    Read(io::Error),
    /// It is not UTF-8, or not the JSON that was expected.
    Invalid(Box<dyn Error + Send + Sync>),
}

impl BodyError {
    /// What to answer: 413 if the body is too large, else 400; if it was a response's and broke off, [`FetchError::status`].
    pub fn status(&self) -> StatusCode {
        match self {
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Read(error) => FetchError::of(error).map_or(StatusCode::BAD_REQUEST, FetchError::status),
            Self::Invalid(_) => StatusCode::BAD_REQUEST,
        }
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { limit } => write!(f, "the body is larger than {limit} bytes"),
            Self::Read(error) => match FetchError::of(error) {
                Some(reason) => write!(f, "the body could not be read: {reason}"),
                None => f.write_str("the body could not be read"),
            },
            Self::Invalid(_) => f.write_str("the body is not what was expected"),
        }
    }
}

impl Error for BodyError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::TooLarge { .. } => None,
            // What it was has been said, unless it had a cause itself.
            Self::Read(error) => FetchError::of(error).map_or(Some(error), FetchError::source),
            Self::Invalid(error) => Some(error.as_ref()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_has_one_limit_for_each_way_to_collect_it() {
        assert!(matches!(Body::new("12345").bytes_up_to(4), Err(BodyError::TooLarge { limit: 4 })));
        assert_eq!(Body::new("12345").bytes_up_to(5).expect("five bytes"), "12345");
        assert!(matches!(Body::wrap_reader(io::repeat(b'x')).text(), Err(BodyError::TooLarge { .. })));
        assert_eq!(Body::new(vec![0xff]).text().expect_err("not UTF-8").status(), StatusCode::BAD_REQUEST);
    }

    #[test]
    fn a_large_body_comes_in_chunks() {
        let body = Body::new(vec![7; 3 * CHUNK + 1]);
        let lengths: Vec<_> = body.into_iter().map(|chunk| chunk.expect("in memory").len()).collect();
        assert_eq!(lengths, [CHUNK, CHUNK, CHUNK, 1]);
    }

    #[test]
    fn a_body_can_be_read_line_by_line_and_then_collected() {
        let mut body = Body::wrap_reader(&b"one\ntwo\nthree"[..]);
        let mut line = String::new();
        body.reader().read_line(&mut line).expect("a line");
        assert_eq!(line, "one\n");
        assert_eq!(body.text().expect("the rest"), "two\nthree");
    }

    #[test]
    fn a_streamed_body_can_be_read_with_its_trailers() {
        let mut body = Body::stream_with_trailers(|writer| {
            writer.write_all(b"data")?;
            Ok(HeaderMap::from_iter([(http::header::ETAG, http::HeaderValue::from_static("x"))]))
        });
        assert_eq!(body.length(), None);
        assert_eq!(body.text().expect("text"), "data");
        assert_eq!(body.trailers().expect("trailers")["etag"], "x");
    }

    #[test]
    fn a_failing_writer_is_an_error_not_an_end() {
        let mut body = Body::stream(|_| Err(io::Error::other("no")));
        assert!(matches!(body.bytes(), Err(BodyError::Read(_))));
    }
}
