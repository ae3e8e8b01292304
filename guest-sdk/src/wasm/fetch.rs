//! The wasm side of [`crate::fetch()`].

use http::{Method, uri::Scheme};
use wasip2::http::{
    outgoing_handler,
    types::{ErrorCode, IncomingResponse, Method as WasiMethod, OutgoingRequest, Scheme as WasiScheme},
};

use super::{Incoming, as_resource, fields_from, headers_from, send_body};
use crate::{Body, FetchError, Request, Response};

pub(crate) fn fetch(request: Request) -> Result<Response, FetchError> {
    let (head, body) = request.into_parts();
    let outgoing = OutgoingRequest::new(as_resource(&fields_from(&head.headers)));
    let method = match head.method {
        Method::GET => WasiMethod::Get,
        Method::HEAD => WasiMethod::Head,
        Method::POST => WasiMethod::Post,
        Method::PUT => WasiMethod::Put,
        Method::DELETE => WasiMethod::Delete,
        Method::CONNECT => WasiMethod::Connect,
        Method::OPTIONS => WasiMethod::Options,
        Method::TRACE => WasiMethod::Trace,
        Method::PATCH => WasiMethod::Patch,
        other => WasiMethod::Other(other.to_string()),
    };
    let scheme = match head.uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTPS => WasiScheme::Https,
        Some(scheme) if *scheme == Scheme::HTTP => WasiScheme::Http,
        Some(other) => WasiScheme::Other(other.to_string()),
        None => return Err(FetchError::Invalid("scheme")),
    };
    let path = head.uri.path_and_query().map(|path| path.as_str());
    outgoing.set_method(&method).map_err(|()| FetchError::Invalid("method"))?;
    outgoing.set_scheme(Some(&scheme)).map_err(|()| FetchError::Invalid("scheme"))?;
    outgoing
        .set_authority(head.uri.authority().map(|authority| authority.as_str()))
        .map_err(|()| FetchError::Invalid("authority"))?;
    outgoing.set_path_with_query(path).map_err(|()| FetchError::Invalid("path"))?;

    let sink = outgoing.body().map_err(|()| FetchError::Invalid("body"))?;
    let future = outgoing_handler::handle(outgoing, None).map_err(failed)?;
    let sent = send_body(body, sink);
    let answer = loop {
        match future.get() {
            None => future.subscribe().block(),
            // Asked once only, so it was not taken before.
            Some(taken) => break taken.unwrap_or(Err(ErrorCode::InternalError(None))),
        }
    };
    // A server may answer before it has read everything: then what became of our body does not matter.
    match (answer, sent) {
        (Ok(response), _) => response_from(response),
        (Err(ErrorCode::HttpRequestDenied), _) => Err(FetchError::Denied),
        (Err(_), Err(error)) => Err(FetchError::Body(error)),
        (Err(code), Ok(())) => Err(failed(code)),
    }
}

fn response_from(incoming: IncomingResponse) -> Result<Response, FetchError> {
    let mut response = Response::default();
    *response.status_mut() =
        incoming.status().try_into().map_err(|_| FetchError::Failed("the response has no valid status".into()))?;
    *response.headers_mut() = headers_from(&incoming.headers());
    *response.body_mut() = Body::from_source(Incoming::Response(incoming));
    Ok(response)
}

fn failed(code: ErrorCode) -> FetchError {
    match code {
        ErrorCode::HttpRequestDenied => FetchError::Denied,
        other => FetchError::Failed(format!("{other:?}")),
    }
}
