//! Writes a body to the host: of a response, or of a request by [`fetch`](crate::fetch()).
//!
//! Writes are as large as the host allows and wait only when it allows nothing; `blocking-write-and-flush` is not used, since it takes 4 KiB
//! at a time and waits after each.

use std::io::{self, Write};

use wasip2::{
    http::types::OutgoingBody,
    io::streams::{OutputStream, StreamError},
};

use super::{as_resource, fields_from};
use crate::Body;

/// Sends all of `body` and its trailers. On an error `sink` is dropped unfinished, which the host tells from an end.
pub(crate) fn send_body(mut body: Body, sink: OutgoingBody) -> io::Result<()> {
    if body.length() != Some(0) {
        // The stream is the sink's child: it must be gone before that is finished.
        let mut stream = Outgoing(sink.write().map_err(|()| io::ErrorKind::InvalidInput)?);
        stream.write_all(&body.bytes)?;
        if let Some(source) = &mut body.source {
            source.send(&mut stream)?;
        }
    }
    let trailers = body.take_trailers()?;
    let trailers = (!trailers.is_empty()).then(|| as_resource(&fields_from(&trailers)));
    // Refused: the body is not as long as its content-length.
    OutgoingBody::finish(sink, trailers).map_err(|_| io::ErrorKind::InvalidData.into())
}

struct Outgoing(OutputStream);

impl Write for Outgoing {
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
fn broken(_: StreamError) -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}
