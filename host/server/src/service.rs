//! [`Service`]s as [`Handler`]s: calls the service, sends the head, and then moves the body on the same worker.

use std::sync::{Arc, Mutex};

use http::HeaderMap;
use http::header::{CONTENT_LENGTH, HeaderName, HeaderValue, TRAILER};
use http_body_util::BodyExt as _;

use crate::body::{BodyWriter, Source};
use crate::exchange::{Exchange, Handler, Responder};
use crate::http::{Response, Service};
use crate::outgoing::{Channel, Outgoing};
use crate::sync::lock;

/// A service that all workers call.
pub(crate) struct Serviced<S>(pub(crate) S);

impl<S: Service + Sync> Handler for Serviced<S> {
    fn handle(&self, exchange: Exchange) {
        let Exchange { request, info, responder, .. } = exchange;
        respond(self.0.call(request, info), responder);
    }
}

/// A service that is cloned for each request.
pub(crate) struct Cloned<S>(Mutex<S>);

impl<S> Cloned<S> {
    pub(crate) fn new(service: S) -> Self {
        Self(Mutex::new(service))
    }
}

impl<S: Service + Clone> Handler for Cloned<S> {
    fn handle(&self, exchange: Exchange) {
        let Exchange { request, info, responder, .. } = exchange;
        let service = lock(&self.0).clone();
        respond(service.call(request, info), responder);
    }
}

/// Sends the head with what of the body needs no worker, then does the rest.
fn respond(mut response: Response, responder: Responder) {
    let body = std::mem::take(response.body_mut());
    let (source, trailers) = body.into_source();
    if let Some(trailers) = &trailers {
        announce(&mut response, trailers);
    }
    match (source, trailers) {
        (Source::Bytes(bytes), None) => {
            true_length(&mut response, bytes.len() as u64, responder.is_head());
            responder.fill(response.map(|_| Outgoing::full(bytes)));
        }
        (Source::Foreign(body), None) => responder.fill(response.map(|_| Outgoing::foreign(body))),
        (Source::Foreign(body), Some(trailers)) => {
            let body = body.with_trailers(async { Some(Ok(trailers)) });
            responder.fill(response.map(|_| Outgoing::wrap(body)));
        }
        (Source::Bytes(bytes), trailers) => pump(response, responder, trailers, |writer| writer.send(bytes)),
        (Source::Pump(write), trailers) => pump(response, responder, trailers, write),
    }
}

/// Lets `write` write the body after the head has been handed over.
fn pump(
    response: Response,
    responder: Responder,
    trailers: Option<HeaderMap>,
    write: impl FnOnce(&mut BodyWriter) -> std::io::Result<()>,
) {
    let channel: Arc<Channel> = Channel::new();
    let is_head = responder.is_head();
    responder.fill(response.map(|_| Outgoing::channel(channel.clone())));
    let mut writer = BodyWriter::new(channel);
    // Nobody reads the body of an answer to HEAD.
    let written = if is_head { Ok(()) } else { write(&mut writer) };
    if let Err(error) = written.and_then(|()| writer.finish(trailers)) {
        log::debug!("a response body was not finished: {error}");
    }
}

/// Makes `content-length` agree with a body whose length is known: what a service claims must not desynchronise the connection.
/// An answer to HEAD may state the length of what GET would get (RFC 9110 section 8.6).
fn true_length(response: &mut Response, length: u64, is_head: bool) {
    if response.headers().contains_key(CONTENT_LENGTH) && !(is_head && length == 0) {
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
}

/// Names the trailers in the head, if the service has not: HTTP/1.1 recipients (and hyper) drop others (RFC 9110 section 6.6.2).
fn announce(response: &mut Response, trailers: &HeaderMap) {
    let names: Vec<_> = trailers.keys().map(HeaderName::as_str).collect();
    // Names of header fields joined by commas are a valid value.
    if let Ok(names) = HeaderValue::try_from(names.join(", ")) {
        response.headers_mut().entry(TRAILER).or_insert(names);
    }
}
