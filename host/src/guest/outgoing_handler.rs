//! `wasi:http/outgoing-handler` of WASI 0.2, with `future-incoming-response` and `http-error-code`, which are ours too.
//!
//! wasmtime-wasi-http's spawns a task for each request, so that each waits for a thread of Tokio's twice; ours does not go there at all.
//! Called on the worker that runs the guest.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use http::{Method, Request, Response, Uri, uri::Scheme};
use http_body_util::{BodyExt as _, Empty};
use wasmtime::{
    Result,
    component::{Linker, Resource, ResourceType},
};
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};
use wasmtime_wasi_http::{
    Error, FieldMap, RequestOptions, WasiBody, WasiHttpView as _,
    p2::{
        bindings::http::types::{ErrorCode, IoError, Scheme as WasiScheme},
        body::HostIncomingBody,
        types::{HostIncomingResponse, HostOutgoingRequest},
    },
};

use super::{
    answer::content_length,
    http::HTTP_TYPES,
    instance::State,
    outbound::{self, Sending},
    watch::{WaitsFor, noting},
};

/// The version is wasmtime-wasi-http's; guests of all 0.2.x find it.
const OUTGOING_HANDLER: &str = "wasi:http/outgoing-handler@0.2.12";

/// Adds it to a linker that has wasmtime-wasi-http's `wasi:http/types`, and allows shadowing.
pub(crate) fn link(linker: &mut Linker<State>) -> Result<()> {
    linker.instance(OUTGOING_HANDLER)?.func_wrap(
        "handle",
        |mut store, (request, options): (Resource<HostOutgoingRequest>, Option<Resource<RequestOptions>>)| {
            Ok((handle(store.data_mut(), request, options)?,))
        },
    )?;
    let mut types = linker.instance(HTTP_TYPES)?;
    types.resource("future-incoming-response", ResourceType::host::<FutureResponse>(), |mut store, handle| {
        store.data_mut().table.delete(Resource::<FutureResponse>::new_own(handle))?;
        Ok(())
    })?;
    types.func_wrap(
        "[method]future-incoming-response.subscribe",
        |mut store, (future,): (Resource<FutureResponse>,)| {
            let pollable: Resource<DynPollable> = subscribe(&mut store.data_mut().table, future)?;
            Ok((pollable,))
        },
    )?;
    types.func_wrap("[method]future-incoming-response.get", |mut store, (future,): (Resource<FutureResponse>,)| {
        Ok((get(store.data_mut(), &future)?,))
    })?;
    types.func_wrap("http-error-code", |mut store, (error,): (Resource<IoError>,)| {
        Ok((http_error_code(store.data_mut(), &error)?,))
    })
}

/// wasmtime-wasi-http's does not know its own errors of bodies.
pub(super) fn http_error_code(state: &State, error: &Resource<IoError>) -> Result<Option<ErrorCode>> {
    let error = state.table.get(error)?;
    let of_body = || error.downcast_ref::<Error>().map(outbound::code);
    Ok(error.downcast_ref::<ErrorCode>().cloned().or_else(of_body))
}

pub(super) fn handle(
    state: &mut State,
    request: Resource<HostOutgoingRequest>,
    options: Option<Resource<RequestOptions>>,
) -> Result<Result<Resource<FutureResponse>, ErrorCode>> {
    let options = options.map(|options| state.table.delete(options)).transpose()?.unwrap_or_default();
    let request = state.table.delete(request)?;
    Ok(match request_from(request).and_then(|request| state.hooks.send(request, options)) {
        Ok(sending) => Ok(state.table.push(FutureResponse::new(sending))?),
        Err(error) => Err(outbound::code(&error)),
    })
}

/// The request that a guest has put together.
fn request_from(request: HostOutgoingRequest) -> Result<Request<WasiBody>, Error> {
    let method: Method = request.method.try_into().map_err(|_| Error::HttpRequestMethodInvalid)?;
    let scheme = match request.scheme {
        Some(WasiScheme::Http) => Scheme::HTTP,
        // As everywhere in the field.
        Some(WasiScheme::Https) | None => Scheme::HTTPS,
        Some(WasiScheme::Other(_)) => return Err(Error::HttpProtocolError),
    };
    let uri = Uri::builder()
        .scheme(scheme)
        .authority(request.authority.unwrap_or_default())
        // None is an empty path (WASI 0.2), which goes out as `/` (RFC 9112 §3.2.1).
        .path_and_query(request.path_with_query.unwrap_or_else(|| "/".to_owned()))
        .build()
        .map_err(|_| Error::HttpRequestUriInvalid)?;
    let body = match (request.body, content_length(&request.headers)) {
        (_, Err(())) => return Err(Error::HttpProtocolError),
        (None, Ok(Some(1..))) => return Err(Error::HttpRequestBodySize(Some(0))),
        (None, Ok(None | Some(0))) => Empty::new().map_err(|never| match never {}).boxed_unsync(),
        (Some(body), Ok(_)) => body,
    };
    let mut sent = Request::new(body);
    (*sent.method_mut(), *sent.uri_mut(), *sent.headers_mut()) = (method, uri, request.headers.into());
    Ok(sent)
}

type Got = Result<Response<WasiBody>, Error>;

/// The `future-incoming-response` resource.
pub(super) enum FutureResponse {
    Pending(Pin<Box<dyn Future<Output = Got> + Send>>),
    Ready(Box<Got>),
    Taken,
}

impl FutureResponse {
    fn new(mut sending: Sending) -> Self {
        match sending.response.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(got) => Self::Ready(Box::new(got.map(|(response, _)| response))),
            Poll::Pending => {
                let responding = sending.going_on();
                Self::Pending(Box::pin(async move { responding.await.map(|(response, _)| response) }))
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Self::Pending(response) = self {
            let Poll::Ready(got) = response.as_mut().poll(cx) else { return Poll::Pending };
            *self = Self::Ready(Box::new(got));
        }
        Poll::Ready(())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for FutureResponse {
    async fn ready(&mut self) {
        noting(WaitsFor::Outgoing, poll_fn(|cx| self.poll(cx))).await;
    }
}

/// None while it is pending; an error the second time.
pub(super) type Taken = Option<Result<Result<Resource<HostIncomingResponse>, ErrorCode>, ()>>;

pub(super) fn get(state: &mut State, future: &Resource<FutureResponse>) -> Result<Taken> {
    let future = state.table.get_mut(future)?;
    if future.poll(&mut Context::from_waker(Waker::noop())).is_pending() {
        return Ok(None);
    }
    let FutureResponse::Ready(got) = std::mem::replace(future, FutureResponse::Taken) else { return Ok(Some(Err(()))) };
    Ok(Some(Ok(match *got {
        Err(error) => Err(outbound::code(&error)),
        Ok(response) => {
            let (head, body) = response.into_parts();
            let headers = FieldMap::new_immutable(state.http().hooks, head.headers);
            let body = Some(HostIncomingBody::new(body));
            Ok(state.table.push(HostIncomingResponse { status: head.status.as_u16(), headers, body })?)
        }
    })))
}
