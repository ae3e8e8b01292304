//! The wasm side of [`crate::fetch()`]: one exchange, from the request's head to the end of the response.
//!
//! Both bodies move in one loop, so that neither end waits for ever for the other. In WASI 0.2 what is made of a resource has to be dropped
//! before it: pollables before streams, streams before bodies.

use std::{
    fmt,
    io::{self, Write as _},
};

use bytes::Bytes;
use http::{HeaderMap, Method, header::CONTENT_LENGTH, uri::Scheme};
use wasip2::{
    http::{
        outgoing_handler,
        types::{
            ErrorCode, FutureIncomingResponse, IncomingResponse, Method as WasiMethod, OutgoingRequest, RequestOptions,
            Scheme as WasiScheme, http_error_code,
        },
    },
    io::{error::Error as HostError, poll::poll, streams::InputStream},
};

use super::{
    Incoming, as_resource, fetch_codes::failure, fields_from, headers_from, number, outgoing::Outgoing, upload::Upload,
};
use crate::{
    Body, FetchError, Request, Response, WaitedFor,
    body::{Source, failed},
    fetch::Timeouts,
};

/// Sends the head, and of the body what the host takes at once.
pub(crate) fn start(request: Request) -> Result<Pending, FetchError> {
    let (head, body) = request.into_parts();
    let mut fields = fields_from(&head.headers);
    // Without one the host can only send chunks, and some servers take none. Where a body is meant they want to hear that there is none (RFC
    // 9110 section 8.6).
    let means_one = matches!(head.method, Method::POST | Method::PUT | Method::PATCH);
    if let Some(length) = body.length()
        && (length > 0 || means_one)
        && !head.headers.contains_key(CONTENT_LENGTH)
    {
        fields.push((CONTENT_LENGTH.as_str().to_owned(), number(length)));
    }
    let outgoing = OutgoingRequest::new(as_resource(&fields).ok_or(FetchError::Limit("the request's headers"))?);
    // A new request's is GET.
    if head.method != Method::GET {
        outgoing.set_method(&method_from(&head.method)).map_err(|()| FetchError::Invalid("method"))?;
    }
    let scheme = head.uri.scheme().map(|scheme| match scheme {
        scheme if *scheme == Scheme::HTTPS => WasiScheme::Https,
        scheme if *scheme == Scheme::HTTP => WasiScheme::Http,
        other => WasiScheme::Other(other.to_string()),
    });
    outgoing.set_scheme(scheme.as_ref()).map_err(|()| FetchError::Invalid("scheme"))?;
    let authority = head.uri.authority().map(|authority| authority.as_str());
    outgoing.set_authority(authority).map_err(|()| FetchError::Invalid("authority"))?;
    let path = head.uri.path_and_query().map(|path| path.as_str());
    outgoing.set_path_with_query(path).map_err(|()| FetchError::Invalid("path"))?;
    let options = head.extensions.get().map(options_from).transpose()?;

    let mut upload = match body.length() {
        Some(0) => None,
        _ => Some(Upload::new(outgoing.body().map_err(|()| FetchError::Invalid("body"))?, body)?),
    };
    let future = outgoing_handler::handle(outgoing, options).map_err(|code| failure(code, WaitedFor::FirstByte))?;
    Upload::advance(&mut upload)?;
    Ok(Pending { upload, future })
}

fn method_from(method: &Method) -> WasiMethod {
    match *method {
        Method::GET => WasiMethod::Get,
        Method::HEAD => WasiMethod::Head,
        Method::POST => WasiMethod::Post,
        Method::PUT => WasiMethod::Put,
        Method::DELETE => WasiMethod::Delete,
        Method::CONNECT => WasiMethod::Connect,
        Method::OPTIONS => WasiMethod::Options,
        Method::TRACE => WasiMethod::Trace,
        Method::PATCH => WasiMethod::Patch,
        _ => WasiMethod::Other(method.to_string()),
    }
}

fn options_from(timeouts: &Timeouts) -> Result<RequestOptions, FetchError> {
    let options = RequestOptions::new();
    let nanoseconds = |after: std::time::Duration| u64::try_from(after.as_nanos()).unwrap_or(u64::MAX);
    options
        .set_connect_timeout(timeouts.connect.map(nanoseconds))
        .and_then(|()| options.set_first_byte_timeout(timeouts.first_byte.map(nanoseconds)))
        .and_then(|()| options.set_between_bytes_timeout(timeouts.between_bytes.map(nanoseconds)))
        .map_err(|()| FetchError::Invalid("time-out that the host supports"))?;
    Ok(options)
}

pub(crate) struct Pending {
    upload: Option<Upload>,
    future: FutureIncomingResponse,
}

impl Pending {
    pub(crate) fn wait(mut self) -> Result<Response, FetchError> {
        let answer = loop {
            let can_send = Upload::advance(&mut self.upload)?;
            if can_send.is_none() {
                self.future.subscribe().block();
            }
            if let Some(taken) = self.future.get() {
                // Asked once only, so it was not taken before.
                break taken.unwrap_or(Err(ErrorCode::InternalError(None)));
            }
            if let Some(can_send) = &can_send {
                poll(&[can_send, &self.future.subscribe()]);
            }
        };
        let incoming = answer.map_err(|code| failure(code, WaitedFor::FirstByte))?;
        response_from(incoming, self.upload)
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").finish_non_exhaustive()
    }
}

fn response_from(incoming: IncomingResponse, upload: Option<Upload>) -> Result<Response, FetchError> {
    let mut response = Response::default();
    *response.status_mut() =
        incoming.status().try_into().map_err(|_| FetchError::Protocol("its response has no valid status"))?;
    *response.headers_mut() = headers_from(&incoming.headers());
    *response.body_mut() = Body::from_source(Exchange { upload, incoming: Incoming::Response(incoming) });
    Ok(response)
}

/// The body of a response, and what is still to be sent of its request.
struct Exchange {
    upload: Option<Upload>,
    incoming: Incoming,
}

impl Source for Exchange {
    fn read(&mut self) -> io::Result<Bytes> {
        loop {
            let can_send = Upload::advance(&mut self.upload)?;
            let read = if can_send.is_some() { InputStream::read } else { InputStream::blocking_read };
            match self.incoming.next(read) {
                Ok(Some(chunk)) => {
                    if chunk.is_empty() {
                        drop(can_send);
                        self.upload = None; // a response that is complete wants no more
                    }
                    return Ok(chunk);
                }
                Ok(None) => {
                    if let (Some(can_send), Some(can_read)) = (&can_send, self.incoming.subscribe()) {
                        poll(&[can_send, &can_read]);
                    }
                }
                Err(error) => return Err(unreadable(error)),
            }
        }
    }

    fn pass_on(&mut self, to: &mut Outgoing<'_>) -> io::Result<()> {
        // As long as there is something to send, nothing may wait for the response alone.
        while self.upload.is_some() {
            let chunk = self.read().inspect_err(failed)?;
            if chunk.is_empty() {
                return Ok(());
            }
            to.write_all(&chunk)?;
        }
        self.incoming.splice_all(to, unreadable).inspect_err(failed)
    }

    fn trailers(&mut self) -> io::Result<HeaderMap> {
        self.incoming.trailers()
    }
}

/// Why reading the response has failed; without an error of the host's it had before.
fn unreadable(error: Option<HostError>) -> io::Error {
    let Some(error) = error else { return FetchError::Incomplete.into() };
    let told = http_error_code(&error).map(|code| failure(code, WaitedFor::NextBytes));
    told.unwrap_or_else(|| FetchError::Failed(error.to_debug_string())).into()
}
