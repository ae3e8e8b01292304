//! Sends the body of an outgoing request without standing in the way of its response: what the host takes at once goes out, and for the
//! rest there is something to wait for.

use std::io;

use wasip2::{
    http::types::{OutgoingBody, http_error_code},
    io::{
        poll::Pollable,
        streams::{OutputStream, StreamError},
    },
};

use super::{
    fetch_codes::failure,
    incoming::Unspliced,
    outgoing::{Outgoing, trailers_from},
};
use crate::{Body, FetchError, WaitedFor, body::Kind};

pub(super) struct Upload {
    /// The sink's child: dropped first, as fields are in this order.
    stream: OutputStream,
    /// Dropped unfinished, the host ends the exchange.
    sink: OutgoingBody,
    body: Body,
}

/// What became of sending on.
pub(super) enum Progress {
    /// Before there is more to do, this has to be waited for; and dropped before the upload.
    Waits(Pollable),
    /// All was sent.
    Done,
    /// Nobody takes any more. Why, the response says.
    Unwanted,
}

impl Upload {
    pub(super) fn new(sink: OutgoingBody, body: Body) -> Result<Self, FetchError> {
        let stream = sink.write().map_err(|()| FetchError::Invalid("body"))?;
        Ok(Self { stream, sink, body })
    }

    /// Does what it can without waiting, and drops what is done with. A body that is a function is written to its end at once: it cannot be
    /// interrupted.
    pub(super) fn advance(upload: &mut Option<Self>) -> Result<Option<Pollable>, FetchError> {
        let Some(mut ongoing) = upload.take() else { return Ok(None) };
        match ongoing.send()? {
            Progress::Waits(pollable) => {
                *upload = Some(ongoing);
                Ok(Some(pollable))
            }
            Progress::Done => ongoing.finish().map(|()| None),
            Progress::Unwanted => Ok(None),
        }
    }

    fn send(&mut self) -> Result<Progress, FetchError> {
        loop {
            if self.body.bytes.is_empty() {
                match self.body.source.as_mut().map(|source| source.kind()) {
                    None => return Ok(Progress::Done),
                    Some(Kind::Read) => {
                        if self.body.fill().map_err(FetchError::Body)?.is_empty() {
                            return Ok(Progress::Done);
                        }
                    }
                    Some(Kind::Incoming(incoming)) => match incoming.splice(&self.stream, OutputStream::splice) {
                        Ok(Some(1..)) => continue,
                        Ok(None) => return Ok(Progress::Done),
                        Ok(Some(0)) => match self.stream.check_write() {
                            Ok(1..) => return Ok(incoming.subscribe().map_or(Progress::Done, Progress::Waits)),
                            _ => return Ok(Progress::Waits(self.stream.subscribe())),
                        },
                        Err(Unspliced::To(error)) => return unwanted(error),
                        Err(Unspliced::From(error)) => {
                            let text =
                                error.map_or_else(|| "it was taken before".into(), |error| error.to_debug_string());
                            return Err(FetchError::Body(io::Error::other(text)));
                        }
                    },
                    Some(Kind::Write) => return self.write_all(),
                }
            }
            match self.stream.check_write() {
                Ok(0) => return Ok(Progress::Waits(self.stream.subscribe())),
                Ok(allowed) => {
                    let length = self.body.bytes.len().min(usize::try_from(allowed).unwrap_or(usize::MAX));
                    let chunk = self.body.bytes.split_to(length);
                    if let Err(error) = self.stream.write(&chunk) {
                        return unwanted(error);
                    }
                }
                Err(error) => return unwanted(error),
            }
        }
    }

    fn write_all(&mut self) -> Result<Progress, FetchError> {
        let Some(source) = &mut self.body.source else { return Ok(Progress::Done) };
        let mut to = Outgoing(&self.stream);
        let Err(error) = source.send(&mut to) else { return Ok(Progress::Done) };
        // Whose failure it was: a stream that is broken stays so.
        match self.stream.check_write() {
            Ok(_) => Err(FetchError::Body(error)),
            Err(error) => unwanted(error),
        }
    }

    fn finish(mut self) -> Result<(), FetchError> {
        drop(self.stream);
        let trailers = self.body.take_trailers().map_err(FetchError::Body)?;
        OutgoingBody::finish(self.sink, trailers_from(&trailers)).map_err(|code| failure(code, WaitedFor::Sending))
    }
}

fn unwanted(error: StreamError) -> Result<Progress, FetchError> {
    match error {
        StreamError::Closed => Ok(Progress::Unwanted),
        StreamError::LastOperationFailed(error) => match http_error_code(&error) {
            Some(code) => Err(failure(code, WaitedFor::Sending)),
            None => Ok(Progress::Unwanted),
        },
    }
}
