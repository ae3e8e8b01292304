//! Between the host and a handler: `wasi:http` in, `http` types in the middle, `wasi:http` out. Only compiled for Wasm.
//!
//! Each call into the host costs, so nothing is asked for that the handler may not want: a request body is opened when it is first
//! read, and an answer of known length is one head and one write.

pub(crate) mod config;
mod fetch;
mod fetch_codes;
mod incoming;
mod outgoing;
#[cfg(not(feature = "files"))]
mod stdio;
mod upload;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri,
    header::CONTENT_LENGTH,
    uri::{Authority, PathAndQuery, Scheme},
};
use wasip2::http::types::{
    Fields, IncomingRequest, Method as WasiMethod, OutgoingResponse, ResponseOutparam, Scheme as WasiScheme,
};

pub(crate) use fetch::{Pending, start};
pub(crate) use incoming::Incoming;
pub(crate) use outgoing::{Outgoing, send_body};

use crate::{Body, IntoResponse, Request, Response, response::with_status};

/// One request: what the exported function does.
#[doc(hidden)]
pub fn serve<H, R>(handler: H, request: IncomingRequest, responder: ResponseOutparam)
where
    H: FnOnce(Request) -> R,
    R: IntoResponse,
{
    let Some(request) = request_from(request) else {
        return respond(with_status(StatusCode::BAD_REQUEST, Body::empty()), || false, responder);
    };
    let is_head = request.method() == Method::HEAD;
    respond(handler(request).into_response(), || is_head, responder);
}

/// The same for a handler that does not look at its request.
#[doc(hidden)]
#[expect(clippy::needless_pass_by_value, reason = "the exported function owns it, and it is dropped at the end")]
pub fn serve_unread<H, R>(handler: H, request: IncomingRequest, responder: ResponseOutparam)
where
    H: FnOnce(Request) -> R,
    R: IntoResponse,
{
    let response = handler(Request::default()).into_response();
    respond(response, || matches!(request.method(), WasiMethod::Head), responder);
}

fn respond(response: Response, is_head: impl Fn() -> bool, responder: ResponseOutparam) {
    let (head, mut body) = response.into_parts();
    let status = head.status;
    let mut fields = fields_from(&head.headers);
    match body.length() {
        // RFC 9110 6.4.1, 8.6: these have neither.
        _ if status.is_informational() || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED => {
            body = Body::empty();
        }
        // Nobody would see it, and it might never end. A body of known length is the host's to drop.
        None if is_head() => body = Body::empty(),
        None => {}
        // An empty body may only mean that a handler knows what `HEAD` is for.
        Some(0) if is_head() => {}
        Some(length) if !fields.iter().any(|(name, _)| name == CONTENT_LENGTH.as_str()) => {
            fields.push((CONTENT_LENGTH.as_str().to_owned(), number(length)));
        }
        Some(_) => {}
    }
    // 500, rather than a response without its headers.
    let Some(fields) = as_resource(&fields) else { panic!("the host refuses so many headers") };
    let outgoing = OutgoingResponse::new(fields);
    // Both fail only for a status out of range or a second call: neither can be.
    let _ = outgoing.set_status_code(status.as_u16());
    let Ok(sink) = outgoing.body() else { return };
    ResponseOutparam::set(responder, Ok(outgoing));
    // If it fails the body is dropped unfinished, and the host cuts the response.
    let _ = send_body(body, sink);
}

/// `None`: the host's request is none in the eyes of the `http` crate.
fn request_from(incoming: IncomingRequest) -> Option<Request> {
    let mut head = Request::default();
    *head.method_mut() = match incoming.method() {
        WasiMethod::Get => Method::GET,
        WasiMethod::Head => Method::HEAD,
        WasiMethod::Post => Method::POST,
        WasiMethod::Put => Method::PUT,
        WasiMethod::Delete => Method::DELETE,
        WasiMethod::Connect => Method::CONNECT,
        WasiMethod::Options => Method::OPTIONS,
        WasiMethod::Trace => Method::TRACE,
        WasiMethod::Patch => Method::PATCH,
        WasiMethod::Other(name) => Method::from_bytes(name.as_bytes()).ok()?,
    };
    *head.headers_mut() = headers_from(&incoming.headers());
    let mut uri = http::uri::Parts::default();
    let path = incoming.path_with_query().unwrap_or_else(|| "/".into());
    uri.path_and_query = Some(PathAndQuery::from_maybe_shared(path).ok()?);
    if let Some(authority) = incoming.authority() {
        uri.authority = Some(Authority::from_maybe_shared(authority).ok()?);
        uri.scheme = Some(match incoming.scheme() {
            Some(WasiScheme::Https) => Scheme::HTTPS,
            Some(WasiScheme::Other(name)) => Scheme::try_from(name.as_str()).ok()?,
            Some(WasiScheme::Http) | None => Scheme::HTTP,
        });
    }
    *head.uri_mut() = Uri::from_parts(uri).ok()?;
    *head.body_mut() = Body::from_source(Incoming::Request(incoming));
    Some(head)
}

/// Headers the `http` crate does not accept are left out; hosts check them before we do.
fn headers_from(fields: &Fields) -> HeaderMap {
    let entries = fields.entries();
    let mut headers = HeaderMap::with_capacity(entries.len());
    for (name, value) in entries {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_maybe_shared(value))
        {
            headers.append(name, value);
        }
    }
    headers
}

type FieldList = Vec<(String, Vec<u8>)>;

fn fields_from(headers: &HeaderMap) -> FieldList {
    headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect()
}

/// Headers the host forbids are left out: connection-specific ones, which are its own affair. `None`: together they are too large.
fn as_resource(fields: &FieldList) -> Option<Fields> {
    // One call for all. Only if that is refused each is tried, with the same function: every import costs each new instance.
    Fields::from_list(fields).ok().or_else(|| {
        let is_accepted = |field: &&(String, Vec<u8>)| Fields::from_list(std::slice::from_ref(*field)).is_ok();
        let accepted: FieldList = fields.iter().filter(is_accepted).cloned().collect();
        Fields::from_list(&accepted).ok()
    })
}

fn number(length: u64) -> Vec<u8> {
    itoa::Buffer::new().format(length).into()
}
