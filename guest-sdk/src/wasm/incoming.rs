//! A body that comes from the host: of a request, or of a response to [`fetch`](crate::fetch()).

use std::io;

use bytes::Bytes;
use http::HeaderMap;
use wasip2::{
    http::types::{FutureTrailers, IncomingBody, IncomingRequest, IncomingResponse},
    io::{
        error::Error as HostError,
        poll::Pollable,
        streams::{InputStream, StreamError},
    },
};

use crate::body::{CHUNK, Kind, Source};

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
                Err(Some(error)) => return Err(io::Error::other(error.to_debug_string())),
                Err(None) => return Err(io::ErrorKind::BrokenPipe.into()),
            }
        }
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
        self.open()?;
        match self {
            Self::Open(stream, _) => match read(stream, CHUNK as u64) {
                Ok(chunk) => return Ok(Some(chunk.into()).filter(|chunk: &Bytes| !chunk.is_empty())),
                Err(StreamError::Closed) => {}
                Err(StreamError::LastOperationFailed(error)) => {
                    *self = Self::Failed;
                    return Err(Some(error));
                }
            },
            Self::Ended(_) => return Ok(Some(Bytes::new())),
            _ => return Err(None),
        }
        if let Self::Open(stream, body) = std::mem::replace(self, Self::Failed) {
            drop(stream);
            *self = Self::Ended(IncomingBody::finish(body));
        }
        Ok(Some(Bytes::new()))
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
