//! A body that comes from the host: of a request, or of a response to [`fetch`](crate::fetch()).

use std::io;

use bytes::Bytes;
use http::HeaderMap;
use wasip2::{
    http::types::{FutureTrailers, IncomingBody, IncomingRequest, IncomingResponse},
    io::streams::{InputStream, StreamError},
};

use crate::body::{CHUNK, Source};

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
            match self {
                Self::Request(request) => *self = Self::open(request.consume())?,
                Self::Response(response) => *self = Self::open(response.consume())?,
                Self::Open(stream, _) => match stream.blocking_read(CHUNK as u64) {
                    Ok(chunk) if chunk.is_empty() => {} // allowed, and no end
                    Ok(chunk) => return Ok(chunk.into()),
                    Err(StreamError::Closed) => {
                        if let Self::Open(stream, body) = std::mem::replace(self, Self::Failed) {
                            drop(stream);
                            *self = Self::Ended(IncomingBody::finish(body));
                        }
                    }
                    Err(StreamError::LastOperationFailed(error)) => {
                        let message = error.to_debug_string();
                        *self = Self::Failed;
                        return Err(io::Error::other(message));
                    }
                },
                Self::Ended(_) => return Ok(Bytes::new()),
                Self::Failed => return Err(io::ErrorKind::BrokenPipe.into()),
            }
        }
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
    fn open(body: Result<IncomingBody, ()>) -> io::Result<Self> {
        let body = body.map_err(|()| io::Error::other("the body was taken before"))?;
        let stream = body.stream().map_err(|()| io::Error::other("the body was taken before"))?;
        Ok(Self::Open(stream, body))
    }
}
