//! A body that comes from the host: of a request, or of a response to [`fetch`](crate::fetch()).

use std::io;

use bytes::Bytes;
use http::HeaderMap;
use wasip2::{
    http::types::{FutureTrailers, IncomingBody, IncomingRequest, IncomingResponse},
    io::{
        error::Error as HostError,
        poll::Pollable,
        streams::{InputStream, OutputStream, StreamError},
    },
};

use super::outgoing::{Outgoing, broken};
use crate::body::{CHUNK, Kind, Source};

/// Why a body did not get from one stream to the other.
pub(super) enum Unspliced {
    /// Reading it failed; without an error of the host's it was taken, or failed, before.
    From(Option<HostError>),
    /// Who is to have it takes no more.
    To(StreamError),
}

/// Opened when it is first read: most handlers never do, and every call into the host costs.
pub(crate) enum Incoming {
    Request(IncomingRequest),
    Response(IncomingResponse),
    /// The stream comes first: it is the body's child, and fields are dropped in this order.
    Open(InputStream, IncomingBody),
    Ended(FutureTrailers),
    Failed,
}

impl Source for Incoming {
    fn read(&mut self) -> io::Result<Bytes> {
        loop {
            match self.next(InputStream::blocking_read) {
                Ok(None) => {} // allowed, and no end
                Ok(Some(chunk)) => return Ok(chunk),
                Err(error) => return Err(unreadable(error)),
            }
        }
    }

    fn pass_on(&mut self, to: &mut Outgoing<'_>) -> io::Result<()> {
        self.splice_all(to, unreadable)
    }

    fn kind(&mut self) -> Kind<'_> {
        Kind::Incoming(self)
    }

    /// Waits for them.
    fn trailers(&mut self) -> io::Result<HeaderMap> {
        let Self::Ended(trailers) = self else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        loop {
            match trailers.get() {
                None => trailers.subscribe().block(),
                Some(Ok(Ok(Some(fields)))) => return Ok(super::headers_from(&fields)),
                // None came, or they were taken before.
                Some(Ok(Ok(None)) | Err(())) => return Ok(HeaderMap::new()),
                Some(Ok(Err(code))) => return Err(io::Error::other(format!("{code:?}"))),
            }
        }
    }
}

impl Incoming {
    /// One call of `read`, which says how to: `None` if nothing came of it, no bytes at the end. An error without one of the host's: it was
    /// taken, or failed, before.
    pub(super) fn next(
        &mut self,
        read: fn(&InputStream, u64) -> Result<Vec<u8>, StreamError>,
    ) -> Result<Option<Bytes>, Option<HostError>> {
        let Some(stream) = self.stream()? else { return Ok(Some(Bytes::new())) };
        match read(stream, CHUNK as u64) {
            Ok(chunk) => Ok(Some(chunk.into()).filter(|chunk: &Bytes| !chunk.is_empty())),
            Err(error) => self.end(error).map(|()| Some(Bytes::new())),
        }
    }

    /// One call of `splice`, which says how to: what it moves to `to` never comes into the guest. How many bytes, `None` at the end.
    pub(super) fn splice(
        &mut self,
        to: &OutputStream,
        splice: fn(&OutputStream, &InputStream, u64) -> Result<u64, StreamError>,
    ) -> Result<Option<u64>, Unspliced> {
        let Some(from) = self.stream().map_err(Unspliced::From)? else { return Ok(None) };
        match splice(to, from, CHUNK as u64) {
            Ok(moved) => Ok(Some(moved)),
            // Whose error it is: a stream that is broken stays so. (On some hosts not one that has been given more than its content-length.)
            Err(error) if to.check_write().is_err() => Err(Unspliced::To(error)),
            Err(error) => self.end(error).map(|()| None).map_err(Unspliced::From),
        }
    }

    /// Moves all of it, and waits for it.
    pub(super) fn splice_all(
        &mut self,
        to: &Outgoing<'_>,
        unreadable: fn(Option<HostError>) -> io::Error,
    ) -> io::Result<()> {
        loop {
            match self.splice(to.0, OutputStream::blocking_splice) {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(()),
                Err(Unspliced::From(error)) => return Err(unreadable(error)),
                Err(Unspliced::To(error)) => return Err(broken(error)),
            }
        }
    }

    /// What there is to read from; `None` at the end.
    fn stream(&mut self) -> Result<Option<&InputStream>, Option<HostError>> {
        self.open()?;
        match self {
            Self::Open(stream, _) => Ok(Some(stream)),
            Self::Ended(_) => Ok(None),
            _ => Err(None),
        }
    }

    /// The stream has said that it is at its end, or has failed.
    fn end(&mut self, error: StreamError) -> Result<(), Option<HostError>> {
        match (std::mem::replace(self, Self::Failed), error) {
            (_, StreamError::LastOperationFailed(error)) => return Err(Some(error)),
            (Self::Open(stream, body), StreamError::Closed) => {
                drop(stream);
                *self = Self::Ended(IncomingBody::finish(body));
            }
            // Only what is open says so.
            (other, StreamError::Closed) => *self = other,
        }
        Ok(())
    }

    /// What to wait for before [`next`](Self::next) has something to read, once it had nothing. To be dropped before `self`.
    pub(super) fn subscribe(&self) -> Option<Pollable> {
        match self {
            Self::Open(stream, _) => Some(stream.subscribe()),
            _ => None,
        }
    }

    fn open(&mut self) -> Result<(), Option<HostError>> {
        let body = match self {
            Self::Request(request) => request.consume(),
            Self::Response(response) => response.consume(),
            _ => return Ok(()),
        };
        let body = body.map_err(|()| None)?;
        let stream = body.stream().map_err(|()| None)?;
        *self = Self::Open(stream, body);
        Ok(())
    }
}

/// However the host puts it; without an error of its own it was taken, or failed, before.
fn unreadable(error: Option<HostError>) -> io::Error {
    error.map_or_else(|| io::ErrorKind::BrokenPipe.into(), |error| io::Error::other(error.to_debug_string()))
}
