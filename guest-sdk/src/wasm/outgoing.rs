//! Writes the body of a response to the host, and of a request as far as [`upload`](super::upload) has nothing better to do.
//!
//! Writes are as large as the host allows and wait only when it allows nothing; `blocking-write-and-flush` is not used, since it takes 4 KiB
//! at a time and waits after each.

use std::io::{self, Write};

use http::HeaderMap;
use wasip2::{
    http::types::{Fields, OutgoingBody},
    io::streams::{OutputStream, StreamError},
};

use super::{as_resource, fields_from};
use crate::Body;

/// Sends all of `body` and its trailers. On an error `sink` is dropped unfinished, which the host tells from an end.
pub(crate) fn send_body(mut body: Body, sink: OutgoingBody) -> io::Result<()> {
    if body.length() != Some(0) {
        // The stream is the sink's child: it must be gone before that is finished.
        let stream = sink.write().map_err(|()| io::ErrorKind::InvalidInput)?;
        let mut stream = Outgoing(&stream);
        stream.write_all(&body.bytes)?;
        if let Some(source) = &mut body.source {
            source.pass_on(&mut stream)?;
        }
    }
    let trailers = body.take_trailers()?;
    // Refused: the body is not as long as its content-length.
    OutgoingBody::finish(sink, trailers_from(&trailers)).map_err(|_| io::ErrorKind::InvalidData.into())
}

pub(super) fn trailers_from(trailers: &HeaderMap) -> Option<Fields> {
    if trailers.is_empty() { None } else { as_resource(&fields_from(trailers)) }
}

/// What is written goes to the host.
pub(crate) struct Outgoing<'a>(pub(super) &'a OutputStream);

impl Write for Outgoing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.check_write().map_err(broken)? {
                // Until all is taken and there is room again (WASI 0.2 `wasi:io/streams`, `flush`). A pollable would wait for room only, but
                // is three imports more for every instance.
                0 => self.0.blocking_flush().map_err(broken)?,
                allowed => {
                    let length = bytes.len().min(usize::try_from(allowed).unwrap_or(usize::MAX));
                    self.0.write(&bytes[..length]).map_err(broken)?;
                    return Ok(length);
                }
            }
        }
    }

    /// Waits until the host has taken everything.
    fn flush(&mut self) -> io::Result<()> {
        self.0.blocking_flush().map_err(broken)
    }
}

/// However the host puts it: nobody takes these bytes any more.
pub(super) fn broken(_: StreamError) -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}
