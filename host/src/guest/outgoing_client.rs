//! `wasi:http/client` of WASI 0.3.
//!
//! wasmtime-wasi-http's takes a body whose guest has died for one that has ended, and whoever is asked would take half of it for the whole.
//! So it is given another: the guest's is pumped into the pipe of `body.rs`, within the guest's event loop, and breaks with it. A guest that
//! wants to be sure that all of it has gone waits for the future that `request.new` has given it. Called on the worker that runs the guest.

use std::pin::Pin;

use http::uri::PathAndQuery;
use http_body_util::BodyExt as _;
use tokio::sync::oneshot;
use wasmtime::{
    AsContextMut as _, Result,
    component::{Accessor, AccessorTask, Linker, Resource},
};
use wasmtime_wasi::TrappableError;
use wasmtime_wasi_http::{
    Error, WasiBody, WasiHttp, WasiHttpView as _,
    p3::{
        Request, Response,
        bindings::http::{client::HostWithStore as _, types::ErrorCode},
    },
};

use super::{
    answer::content_length,
    body::BodyWriter,
    http03::{Ended, pump},
    instance::State,
};

/// Adds it to a linker.
pub(crate) fn link(linker: &mut Linker<State>) -> Result<()> {
    linker.instance("wasi:http/client@0.3.0")?.func_wrap_concurrent(
        "send",
        |store: &Accessor<State>, (request,): (Resource<Request>,)| {
            Box::pin(async move {
                Ok((match send(store, request).await {
                    Ok(response) => Ok(response),
                    Err(error) => Err(error.downcast()?),
                },))
            })
        },
    )
}

type HttpError = TrappableError<ErrorCode>;

async fn send(store: &Accessor<State>, request: Resource<Request>) -> Result<Resource<Response>, HttpError> {
    let request = with_body_of_ours(store, request)?;
    WasiHttp::send(&store.with_getter::<WasiHttp>(State::http), request).await
}

/// The same request, with a body that breaks when its guest does.
fn with_body_of_ours(store: &Accessor<State>, request: Resource<Request>) -> Result<Resource<Request>, HttpError> {
    let (tell, told) = oneshot::channel();
    let (because, mut why) = oneshot::channel();
    store.with(|mut store| {
        let mut request = store.as_context_mut().data_mut().table.delete(request).map_err(HttpError::trap)?;
        // None is an empty path (WASI 0.3), which goes out as `/` (RFC 9112 §3.2.1).
        request.path_with_query.get_or_insert_with(|| PathAndQuery::from_static("/"));
        let headers = request.headers.clone();
        let sent = async { told.await.unwrap_or(Err(Error::ConnectionTerminated)) };
        let (request, options) = request.into_http(&mut store, sent)?;
        let (head, body) = request.into_parts();

        let mut context = store.as_context_mut();
        let state = context.data_mut();
        let expected = content_length(&headers).unwrap_or_default(); // it was checked when the guest set it
        let writer = BodyWriter::eager(expected, &state.unsent);
        let reader =
            writer.watch().reader().map_err(move |_| why.try_recv().unwrap_or(Error::HttpRequestBodySize(None)));
        let uri = head.uri.into_parts();
        let (request, sent) =
            Request::new(head.method, uri.scheme, uri.authority, uri.path_and_query, headers, options, reader);
        let request = state.table.push(request).map_err(HttpError::trap)?;
        let upload = Upload { body, writer, because, sent: Box::pin(sent), tell };
        context.spawn(upload).map_err(HttpError::trap)?;
        Ok(request)
    })
}

/// A body on its way from the guest, which may go on after the head of the response has come.
struct Upload {
    body: WasiBody,
    writer: BodyWriter,
    /// Whoever reads it is told so if the guest breaks it off.
    because: oneshot::Sender<Error>,
    /// How it got on from there.
    sent: Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>,
    /// What the guest is told about that.
    tell: oneshot::Sender<Result<(), Error>>,
}

impl AccessorTask<State> for Upload {
    async fn run(self, _store: &Accessor<State>) -> Result<()> {
        let Self { body, mut writer, because, sent, tell } = self;
        let Some(mut stream) = writer.stream() else { return Ok(()) };
        let ended = pump(body, &mut stream).await;
        drop(stream);
        let result = match ended {
            Ok(trailers) => match writer.finish(trailers) {
                Ok(()) => sent.await,
                Err(written) => Err(Error::HttpRequestBodySize(Some(written))),
            },
            Err(Ended::ByReader) => Err(Error::ConnectionTerminated),
            Err(Ended::TooLong(length)) => Err(Error::HttpRequestBodySize(Some(length))),
            Err(Ended::ByGuest(error)) => {
                // Before the body breaks. Nobody may want to know, here and below.
                let _ = because.send(error);
                drop(writer);
                Err(Error::ConnectionTerminated)
            }
        };
        let _ = tell.send(result);
        Ok(())
    }
}
