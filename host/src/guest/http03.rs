//! Guests that speak WASI 0.3 HTTP: their requests, and what becomes of their responses.
//!
//! wasmtime-wasi-http's own bindings throughout. A response's body is pumped into the pipe that those of 0.2 write to (`body.rs`), inside
//! of the guest's event loop: so the two have the same back-pressure, the same answer, and end in the same way. Runs on the worker of the
//! request.

use std::{future::poll_fn, sync::Arc};

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
        bindings::{
            Service,
            http::{client, types},
        },
    },
};

use super::{answer::content_length, body::BodyWriter, http::RequestBody, instance::State};

/// Adds `wasi:http` to a linker.
pub(crate) fn link(linker: &mut Linker<State>) -> Result<()> {
    types::add_to_linker::<State, WasiHttp>(linker, State::http)?;
    client::add_to_linker::<State, WasiHttp>(linker, State::http)
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
        Ok(response) => {
            let (told, tells) = oneshot::channel();
            let sent = async { tells.await.unwrap_or(Err(Error::ConnectionTerminated)) };
            let (head, body) = store.with(|mut store| response.into_http(&mut store, sent))?.into_parts();
            let writer = store.with(|mut store| {
                let mut store = store.as_context_mut();
                let state = store.data_mut();
                let expected = content_length(&head.headers).unwrap_or_default(); // it was checked when the guest set it
                let writer = BodyWriter::new(expected, &state.unsent);
                state.answer.set(Some(writer.watch()), head.status, head.headers);
                writer
            });
            let ended = pump(body, writer).await;
            // Whether the guest still wants to know is its own affair.
            let _ = told.send(ended);
        }
    }
    poll_fn(|cx| store.poll_no_interesting_tasks(cx)).await;
    Ok(())
}

/// Passes a guest's body on until it ends, in order or not. One that does not is broken for its reader.
async fn pump(mut body: WasiBody, mut writer: BodyWriter) -> Result<(), Error> {
    let Some(mut stream) = writer.stream() else { return Ok(()) };
    let mut trailers: Option<HeaderMap> = None;
    while let Some(frame) = body.frame().await {
        match frame?.into_data() {
            Ok(bytes) => write(&mut stream, bytes).await.map_err(|_| Error::ConnectionTerminated)?,
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    drop(stream);
    writer.finish(trailers).map_err(|written| Error::HttpResponseBodySize(Some(written)))
}

async fn write(stream: &mut super::body::BodyStream, mut bytes: Bytes) -> Result<(), StreamError> {
    while !bytes.is_empty() {
        stream.ready().await;
        let room = stream.check_write()?;
        stream.write(bytes.split_to(room.min(bytes.len())))?;
    }
    Ok(())
}
