//! Guests that speak WASI 0.3 HTTP: their requests, and what becomes of their responses.
//!
//! wasmtime-wasi-http's own bindings throughout. A response's body is pumped into the pipe that those of 0.2 write to (`body.rs`), inside
//! of the guest's event loop: so the two have the same back-pressure, the same answer, and end in the same way. Runs on the worker of the
//! request.

use std::{future::poll_fn, mem, sync::Arc};

use bytes::Bytes;
use http::{
    HeaderMap, header,
    uri::{Authority, Scheme},
};
use http_body_util::BodyExt as _;
use tokio::sync::oneshot;
use wasmtime::{
    AsContextMut as _, Result,
    component::{Accessor, Linker},
};
use wasmtime_wasi::p2::{OutputStream as _, Pollable as _, StreamError};
use wasmtime_wasi_http::{
    Error, FieldMap, WasiBody, WasiHttp, WasiHttpView as _,
    p3::{
        Request,
        bindings::{Service, http::types},
    },
};

use super::{
    answer::content_length,
    body::{BodyStream, BodyWriter},
    concurrent::turn,
    heads,
    http::RequestBody,
    instance::State,
    outgoing_client,
};

/// Adds `wasi:http` to a linker.
pub(crate) fn link(linker: &mut Linker<State>) -> Result<()> {
    types::add_to_linker::<State, WasiHttp>(linker, State::http)?;
    linker.allow_shadowing(true);
    heads::v03::link(linker)?;
    linker.allow_shadowing(false);
    outgoing_client::link(linker)
}

/// The guest's view of a request.
///
/// # Errors
/// The request has no authority, or one that is not text.
pub(crate) fn request(state: &mut State, request: astra_server::Request, scheme: &Scheme) -> Result<Request> {
    let (parts, body) = request.into_parts();
    let authority = match parts.uri.authority() {
        Some(authority) => authority.clone(),
        None => {
            let host = parts.headers.get(header::HOST).ok_or_else(|| wasmtime::format_err!("no authority"))?;
            Authority::try_from(host.as_bytes())?
        }
    };
    let body = RequestBody { body, upload: Arc::clone(&state.upload) };
    let headers = FieldMap::new_immutable(state.http().hooks, parts.headers);
    let path = parts.uri.into_parts().path_and_query;
    // How reading the body ends is noted where it is read.
    let (request, _) = Request::new(parts.method, Some(scheme.clone()), Some(authority), path, headers, None, body);
    Ok(request)
}

/// Has the guest answer `request`, and takes its response until the guest's tasks have ended.
///
/// # Errors
/// It trapped.
pub(crate) async fn call(guest: &Service, store: &Accessor<State>, request: Request) -> Result<()> {
    match guest.handle(store, request).await? {
        Err(code) => store.with(|mut store| store.as_context_mut().data_mut().answer.refuse(&code.into())),
        Ok(mut response) => {
            let headers: HeaderMap = mem::take(&mut response.headers).into();
            let (told, tells) = oneshot::channel();
            let sent = async { tells.await.unwrap_or(Err(Error::ConnectionTerminated)) };
            // Without its headers, since it is ours to compare its length with what they promise: it may be one that has no content.
            let (head, body) = store.with(|mut store| response.into_http(&mut store, sent))?.into_parts();
            let stream = store.with(|mut store| {
                let mut store = store.as_context_mut();
                let state = store.data_mut();
                let expected = content_length(&headers).unwrap_or_default(); // it was checked when the guest set it
                let writer = BodyWriter::new(expected, &state.unsent);
                state.answer.begin(writer, head.status, headers)
            });
            let ended = match stream {
                Some(stream) => answer_with(body, stream, store).await,
                None => Ok(()),
            };
            // Whether the guest still wants to know is its own affair.
            let _ = told.send(ended);
        }
    }
    poll_fn(|cx| store.poll_no_interesting_tasks(cx)).await;
    if store.with(|mut store| store.as_context_mut().data_mut().hooks.has_asked()) {
        // Lets what it has written last into its requests go on: the event loop comes here before it comes to what has become ready.
        turn().await;
    }
    Ok(())
}

/// Passes the body of the response on until it ends, in order or not. One that does not is broken for its reader.
async fn answer_with(body: WasiBody, mut stream: BodyStream, store: &Accessor<State>) -> Result<(), Error> {
    let ended = pump(body, &mut stream).await;
    drop(stream);
    store.with(|mut store| {
        let mut store = store.as_context_mut();
        let answer = &mut store.data_mut().answer;
        match ended {
            Ok(trailers) => answer.finish(trailers).map_err(|written| Error::HttpResponseBodySize(Some(written))),
            Err(Ended::ByReader) => Err(Error::ConnectionTerminated),
            Err(Ended::TooLong(length)) => Err(Error::HttpResponseBodySize(Some(length))),
            Err(Ended::ByGuest(error)) => {
                answer.break_off();
                Err(error)
            }
        }
    })
}

/// How a body has ended that did not come to its end.
pub(crate) enum Ended {
    /// It is not read any more.
    ByReader,
    /// It is longer than was promised; so many bytes have come.
    TooLong(u64),
    /// The guest says that it is broken, or whoever it has it from.
    ByGuest(Error),
}

/// Passes a body on to its end, and returns the trailers that it ends with. Within the guest's event loop, so that one whose guest dies does
/// not end.
pub(crate) async fn pump(mut body: WasiBody, stream: &mut BodyStream) -> Result<Option<HeaderMap>, Ended> {
    let mut trailers: Option<HeaderMap> = None;
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        match frame.map_err(Ended::ByGuest)?.into_data() {
            Ok(bytes) => {
                length += bytes.len() as u64;
                write(stream, bytes).await.map_err(|error| match error {
                    StreamError::LastOperationFailed(_) => Ended::TooLong(length),
                    StreamError::Closed | StreamError::Trap(_) => Ended::ByReader,
                })?;
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Ok(trailers)
}

async fn write(stream: &mut BodyStream, mut bytes: Bytes) -> Result<(), StreamError> {
    while !bytes.is_empty() {
        stream.ready().await;
        let room = stream.check_write()?;
        stream.write(bytes.split_to(room.min(bytes.len())))?;
    }
    Ok(())
}
