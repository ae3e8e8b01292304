//! Guests that speak WASI 0.2 HTTP: what they import of it, and their requests.
//!
//! Ours are the five functions of `wasi:http/types` that make and end outgoing bodies (`body.rs`) and the one that takes the answer
//! (`answer.rs`); they replace wasmtime-wasi-http's under the same names. So do those that fill heads (`heads.rs`), and
//! those of outgoing requests (`outgoing_handler.rs`).
//! Runs on the worker of the request.

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::uri;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Empty};
use wasmtime::{
    Result,
    component::{Linker, Resource, ResourceType},
};
use wasmtime_wasi::{clocks::WasiClocksCtxView, p2::DynOutputStream};
use wasmtime_wasi_http::{
    Error, FieldMap, WasiHttp, WasiHttpView as _,
    p2::{
        bindings::{
            LinkOptions,
            http::types::{ErrorCode, Scheme},
            sync as http_sync,
        },
        body::{HyperOutgoingBody, StreamContext},
        types::{HostIncomingRequest, HostOutgoingRequest, HostOutgoingResponse, HostResponseOutparam},
    },
};

use super::{
    answer::content_length,
    body::{BodyWatch, BodyWriter},
    heads,
    instance::{State, Upload, UploadEnd},
    monotonic::Monotonic,
    outgoing_handler,
    watch::{self, WaitsFor},
};
use crate::hop_by_hop;

/// The instance that our functions are put into; the version is wasmtime-wasi-http's, and guests of all 0.2.x find it.
pub(crate) const HTTP_TYPES: &str = "wasi:http/types@0.2.12";

/// Adds `wasi:http` to a linker.
pub(crate) fn link(linker: &mut Linker<State>) -> Result<()> {
    let options = LinkOptions::default();
    http_sync::http::types::add_to_linker::<State, WasiHttp>(linker, &(&options).into(), State::http)?;
    linker.allow_shadowing(true);
    link_outgoing(linker)?;
    outgoing_handler::link(linker)?;
    heads::v02::link(linker)?;
    linker.allow_shadowing(false);
    Ok(())
}

/// The `outgoing-body` resource.
pub(super) struct OutgoingBody {
    writer: BodyWriter,
    context: StreamContext,
}

/// Replaces what makes and ends outgoing bodies, and what takes the answer.
fn link_outgoing(linker: &mut Linker<State>) -> Result<()> {
    let mut types = linker.instance(HTTP_TYPES)?;
    types.resource("outgoing-body", ResourceType::host::<OutgoingBody>(), |mut store, handle| {
        store.data_mut().table.delete(Resource::<OutgoingBody>::new_own(handle))?;
        Ok(())
    })?;
    types
        .func_wrap("[method]outgoing-response.body", |mut store, (response,): (Resource<HostOutgoingResponse>,)| {
            Ok((response_body(store.data_mut(), &response)?,))
        })?;
    types.func_wrap("[method]outgoing-request.body", |mut store, (request,): (Resource<HostOutgoingRequest>,)| {
        Ok((request_body(store.data_mut(), &request)?,))
    })?;
    types.func_wrap("[method]outgoing-body.write", |mut store, (body,): (Resource<OutgoingBody>,)| {
        Ok((write(store.data_mut(), &body)?,))
    })?;
    types.func_wrap(
        "[static]outgoing-body.finish",
        |mut store, (body, trailers): (Resource<OutgoingBody>, Option<Resource<FieldMap>>)| {
            Ok((finish(store.data_mut(), body, trailers)?,))
        },
    )?;
    types.func_wrap(
        "[static]response-outparam.set",
        |mut store,
         (outparam, response): (
            Resource<HostResponseOutparam>,
            Result<Resource<HostOutgoingResponse>, ErrorCode>,
        )| set_response(store.data_mut(), outparam, response),
    )
}

pub(super) type Made = Result<Resource<OutgoingBody>, ()>;

pub(super) fn response_body(state: &mut State, response: &Resource<HostOutgoingResponse>) -> Result<Made> {
    let parts = state.table.get_mut(response)?;
    let (None, Ok(expected)) = (&parts.body, content_length(&parts.headers)) else { return Ok(Err(())) };
    let writer = BodyWriter::new(expected, &state.unsent);
    parts.body = Some(taken(writer.watch()));
    state.answer.add_body(response.rep(), &writer.watch());
    Ok(Ok(state.table.push(OutgoingBody { writer, context: StreamContext::Response })?))
}

pub(super) fn request_body(state: &mut State, request: &Resource<HostOutgoingRequest>) -> Result<Made> {
    let parts = state.table.get_mut(request)?;
    let (None, Ok(expected)) = (&parts.body, content_length(&parts.headers)) else { return Ok(Err(())) };
    let writer = BodyWriter::eager(expected, &state.unsent);
    let reader = writer.watch().reader();
    // That it was not finished is all that can be wrong with it.
    parts.body = Some(reader.map_err(|_| Error::HttpRequestBodySize(None)).boxed_unsync());
    Ok(Ok(state.table.push(OutgoingBody { writer, context: StreamContext::Request })?))
}

/// Marks a response as one whose body has been taken, and keeps that body for as long as the response lives: a guest may finish
/// it before it answers.
fn taken(body: BodyWatch) -> HyperOutgoingBody {
    let keep = move |never: Infallible| {
        let _ = &body;
        match never {}
    };
    Empty::new().map_err(keep).boxed_unsync()
}

pub(super) fn write(state: &mut State, body: &Resource<OutgoingBody>) -> Result<Result<Resource<DynOutputStream>, ()>> {
    let Some(stream) = state.table.get_mut(body)?.writer.stream() else { return Ok(Err(())) };
    let stream: DynOutputStream = Box::new(stream);
    Ok(Ok(state.table.push_child(stream, body)?))
}

pub(super) fn finish(
    state: &mut State,
    body: Resource<OutgoingBody>,
    trailers: Option<Resource<FieldMap>>,
) -> Result<Result<(), ErrorCode>> {
    let OutgoingBody { writer, context } = state.table.delete(body)?;
    let trailers = match trailers {
        Some(trailers) => Some(state.table.delete(trailers)?.into()),
        None => None,
    };
    Ok(writer.finish(trailers).map_err(|written| context.as_body_size_error(written)))
}

pub(super) fn set_response(
    state: &mut State,
    outparam: Resource<HostResponseOutparam>,
    response: Result<Resource<HostOutgoingResponse>, ErrorCode>,
) -> Result<()> {
    state.table.delete(outparam)?;
    match response {
        Ok(response) => {
            let watch = state.answer.body(response.rep());
            let HostOutgoingResponse { status, headers, body } = state.table.delete(response)?;
            state.answer.set(watch.filter(|_| body.is_some()), status, headers.into());
        }
        Err(code) => state.answer.refuse(&code.into()),
    }
    Ok(())
}

/// Makes a request's two handles: the request and the place for its answer.
///
/// # Errors
/// The request has no authority, or one that is not text.
pub(crate) fn handles(
    state: &mut State,
    request: astra_server::Request,
    scheme: &uri::Scheme,
) -> Result<(Resource<HostIncomingRequest>, Resource<HostResponseOutparam>)> {
    let scheme = if *scheme == uri::Scheme::HTTPS { Scheme::Https } else { Scheme::Http };
    let upload = Arc::clone(&state.upload);
    let request = request.map(|body| RequestBody { body, upload });
    let mut http = state.http();
    let request = http.new_incoming_request(scheme, request)?;
    // The callback is never called: `set_response` is there before it.
    let outparam = http.new_response_outparam_from_callback(|_| ())?;
    Ok((request, outparam))
}

/// The client's body as the guest reads it: errors become those of `wasi:http`.
pub(crate) struct RequestBody {
    pub(crate) body: astra_server::Body,
    pub(crate) upload: Arc<Upload>,
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            watch::note(WaitsFor::Body);
            return Poll::Pending;
        };
        Poll::Ready(frame.map(|result| match result {
            Ok(mut frame) => {
                if let Some(data) = frame.data_ref() {
                    self.upload.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
                } else if let Some(trailers) = frame.trailers_mut() {
                    hop_by_hop::clean_trailers(trailers);
                }
                Ok(frame)
            }
            Err(error) => Err(self.explain(&error)),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        Body::size_hint(&self.body)
    }
}

impl RequestBody {
    fn explain(&self, error: &io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::FileTooLarge => {
                self.upload.end(UploadEnd::TooLarge);
                Error::HttpRequestBodySize(None)
            }
            io::ErrorKind::TimedOut => {
                self.upload.end(UploadEnd::TooSlow);
                Error::ConnectionReadTimeout
            }
            io::ErrorKind::InvalidData => {
                self.upload.end(UploadEnd::Malformed);
                Error::HttpProtocolError
            }
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe => {
                self.upload.end(UploadEnd::ClientGone);
                Error::ConnectionTerminated
            }
            _ => Error::HttpProtocolError,
        }
    }
}

impl State {
    /// Clocks need no WASI context, and guests that only sleep are frequent.
    pub(crate) fn time(&mut self) -> WasiClocksCtxView<'_> {
        WasiClocksCtxView { ctx: self.clocks.get_or_insert_default(), table: &mut self.table }
    }

    pub(crate) fn monotonic(&mut self) -> Monotonic<'_> {
        Monotonic { table: &mut self.table, started: self.clock.started() }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::failure::FailureKind;

    struct Fails(io::ErrorKind);

    impl io::Read for Fails {
        fn read(&mut self, _buffer: &mut [u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
    }

    #[test]
    fn it_is_remembered_how_an_upload_broke() {
        for (kind, refusal) in [
            (io::ErrorKind::FileTooLarge, Some(FailureKind::BodyTooLarge)),
            (io::ErrorKind::TimedOut, Some(FailureKind::ClientTooSlow)),
            (io::ErrorKind::ConnectionAborted, None),
            (io::ErrorKind::InvalidData, Some(FailureKind::BadRequest)),
            (io::ErrorKind::Other, None),
        ] {
            let upload = Arc::<Upload>::default();
            let body = astra_server::Body::wrap_reader(Fails(kind));
            let mut body = RequestBody { body, upload: Arc::clone(&upload) };
            let frame = Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop()));
            assert!(matches!(frame, Poll::Ready(Some(Err(_)))));
            assert_eq!(upload.refusal().map(|failure| failure.kind()), refusal, "{kind:?}");
            assert_eq!(upload.client_left(), kind == io::ErrorKind::ConnectionAborted);
        }
    }
}
