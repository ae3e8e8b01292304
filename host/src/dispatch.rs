//! The spine: what happens to one request, from the server's hands into a guest's and back. Runs on the worker that took
//! the request, once for each, and returns when the guest has ended. Holds no state that changes.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use astra_server::{Admission, ConnectionInfo, Event, Exchange, Refused, Responder, Told};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header, request, uri::Scheme,
};
use http_body_util::Full;

use crate::{
    access_log::{Progress, Visit},
    failure::{Failure, FailureKind, Outcome},
    forwarded::{self, Network},
    guest::{self, Gateway, GuestBody, GuestOutput, Stream},
    hop_by_hop,
    in_flight::{InFlight, Ongoing},
    log_line::GuestLine,
    log_writer::{Log, Origin},
    request_id::{self, REQUEST_ID, RequestId, RequestIds},
    revision::{Pin, Revision},
    router::Match,
    table::Tables,
};

/// What every request needs, host-wide.
pub(crate) struct Dispatch {
    pub(crate) tables: Arc<Tables>,
    pub(crate) in_flight: Arc<InFlight>,
    pub(crate) ids: Arc<RequestIds>,
    pub(crate) trusted_proxies: Vec<Network>,
    pub(crate) log: Option<Log>,
    /// A path that the host itself answers.
    pub(crate) health: Option<String>,
    /// What it says there. Relaxed: it is set once, and some request sees it first.
    pub(crate) ready: Arc<AtomicBool>,
}

impl astra_server::Handler for Dispatch {
    fn handle(&self, exchange: Exchange) {
        let Exchange { mut request, info, queued, responder, .. } = exchange;
        let id = self.ids.next();
        // First, so that a client cannot take away what it is not to tell.
        let client_id = prepare(request.headers_mut(), &id);
        let (pin, gateway) = self.pin(&mut request, &info);
        need_authority(&mut request, info.local_addr());
        let scheme = if info.tls().is_some() { Scheme::HTTPS } else { Scheme::HTTP };
        forwarded::rewrite(request.headers_mut(), info.peer_addr(), scheme.as_str(), &self.trusted_proxies);

        let ongoing = Arc::new(ongoing(id, pin.as_deref(), &info, queued, request.method(), request.uri()));
        let visit = self.visit(&ongoing, client_id).map(Arc::new);
        let client = Some(responder.client());
        let reply = Arc::new(Reply::new(responder, id, visit.clone()));
        let Some(mut pin) = pin else { return reply.send_unserved(&no_route()) };

        let _listed = self.in_flight.enter(Arc::clone(&ongoing));
        let output = Arc::new(PrintedLines { log: self.log.clone(), handler: Arc::clone(&pin.handler), id });
        let respond = {
            let reply = Arc::clone(&reply);
            move |response| reply.send_guests(response)
        };
        let watch = Arc::clone(&ongoing.watch);
        let exchange = guest::Exchange { request, scheme, gateway, client, output, watch };
        let report = guest::run(&pin.module, &pin.granted, &pin.limits, exchange, respond);

        if let Outcome::Failed(failure) = &report.outcome {
            reply.send_failure(failure);
            tell_operator(&pin, id, failure);
        }
        if blames_revision(&report.outcome) || pin.counts_5xx && reply.is_5xx.load(Ordering::Relaxed) {
            pin.fail();
        }
        if let Some(visit) = visit {
            visit.guest_ended(&report);
        }
    }

    fn admit(&self, request: &request::Parts, info: &ConnectionInfo) -> Admission {
        if self.health.as_deref().is_some_and(|path| asks_for(request, path)) {
            let (status, text) = match self.ready.load(Ordering::Relaxed) {
                true => (StatusCode::OK, "ready\n"),
                false => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
            };
            return self.answer(request, info, text_response(status, text), Visit::served_by_host);
        }
        match self.tables.lane(host(&request.uri, &request.headers), request.uri.path()) {
            Some(lane) => Admission::Queue(lane),
            None => {
                let failure = no_route();
                self.answer(request, info, failure_response(&failure), |visit| visit.unserved(&failure))
            }
        }
    }

    /// What the server answers by itself gets an id and an access line like everything else.
    fn refused(&self, refused: Refused<'_>) -> Option<Told> {
        let Refused { why, queued, request, info, response, .. } = refused;
        let id = self.ids.next();
        response.headers.insert(REQUEST_ID, id.header());
        let client_id = request_id::sent(&request.headers);
        let mut ongoing = ongoing(id, None, info, queued, &request.method, &request.uri);
        if let Some(revision) = self.tables.revision(host(&request.uri, &request.headers), request.uri.path()) {
            ongoing.handler = Arc::clone(&revision.handler);
            if matches!(why, Event::QueueFull | Event::QueueTimeout) {
                revision.refuse();
            }
        }
        let visit = self.visit(&Arc::new(ongoing), client_id)?;
        visit.refused(response.status, why);
        Some(Box::new(move |sent| visit.sent(sent)))
    }
}

impl Dispatch {
    /// What the host answers itself, whether there is a worker for it or not: with an id and an access line, like everything else.
    fn answer(
        &self,
        request: &request::Parts,
        info: &ConnectionInfo,
        mut response: Response<Bytes>,
        is_known: impl FnOnce(&Visit),
    ) -> Admission {
        let id = self.ids.next();
        response.headers_mut().insert(REQUEST_ID, id.header());
        let ongoing = ongoing(id, None, info, Duration::ZERO, &request.method, &request.uri);
        let visit = self.visit(&Arc::new(ongoing), request_id::sent(&request.headers));
        let told = visit.map(|visit| -> Told {
            is_known(&visit);
            visit.answered(response.status());
            Box::new(move |sent| visit.sent(sent))
        });
        Admission::Answer(response, told)
    }

    /// Pins the revision that the request is for, and tells the guest which route it came by.
    fn pin(&self, request: &mut astra_server::Request, info: &ConnectionInfo) -> (Option<Pin>, Gateway) {
        let mut gateway = Gateway { peer: info.peer_addr(), local: info.local_addr(), script: 0 };
        let mut told = Vec::new();
        let (host, path) = (host(request.uri(), request.headers()), request.uri().path());
        let pin = self.tables.pin(host, path, |found| {
            told = told_route(found);
            gateway.script = found.script(path);
        });
        put_route(request.headers_mut(), told);
        (pin, gateway)
    }

    /// The access line in the making, if there is an access log.
    fn visit(&self, request: &Arc<Ongoing>, client_id: Option<HeaderValue>) -> Option<Visit> {
        let log = self.log.as_ref().filter(|log| log.has_access_lines())?;
        let (log, request) = (log.clone(), Arc::clone(request));
        Some(Visit { log, request, client_id, progress: Progress::default() })
    }
}

fn ongoing(
    id: RequestId,
    revision: Option<&Arc<Revision>>,
    info: &ConnectionInfo,
    queued: Duration,
    method: &Method,
    uri: &Uri,
) -> Ongoing {
    Ongoing {
        id,
        handler: revision.map_or_else(|| Arc::from("-"), |revision| Arc::clone(&revision.handler)),
        revision: revision.map_or(0, |revision| revision.number),
        queued,
        started: Instant::now(),
        peer: info.peer_addr(),
        method: method.clone(),
        uri: uri.clone(),
        watch: Arc::default(),
    }
}

fn asks_for(request: &request::Parts, path: &str) -> bool {
    request.uri.path() == path && matches!(request.method, Method::GET | Method::HEAD)
}

fn blames_revision(outcome: &Outcome) -> bool {
    outcome.failure().is_some_and(|failure| failure.kind().blames_revision())
}

fn no_route() -> Failure {
    Failure::new(FailureKind::NotFound, "no route matches")
}

/// Whom the client asks: the authority in the request line (RFC 9112 §3.2.2) or of HTTP/2, else `Host`.
pub(crate) fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    let authority = uri.authority().map(http::uri::Authority::as_str);
    authority.or_else(|| headers.get(header::HOST)?.to_str().ok())
}

const ROUTE: HeaderName = HeaderName::from_static("x-route");
const ROUTE_REST: HeaderName = HeaderName::from_static("x-route-rest");
const ROUTE_PARAM: &str = "x-route-param-";

/// The route that a request came by, for its guest: `x-route`, `x-route-rest` for what `*` stands for, and `x-route-param-NAME`, as they
/// stand in the path, percent-encoded. Nothing if the route is `/*`, which says nothing.
pub(crate) fn told_route(found: &Match<'_>) -> Vec<(HeaderName, HeaderValue)> {
    if found.route.path == "/*" {
        return Vec::new();
    }
    let told = |name, value: &str| Some((name, HeaderValue::from_bytes(value.as_bytes()).ok()?));
    let param = |(name, value): (&str, &str)| {
        told(HeaderName::from_bytes(format!("{ROUTE_PARAM}{name}").as_bytes()).ok()?, value)
    };
    let rest = found.rest().and_then(|rest| told(ROUTE_REST, rest));
    let route = told(ROUTE, &found.route.path);
    route.into_iter().chain(rest).chain(found.params().filter_map(param)).collect()
}

/// A client must not tell what only we know.
pub(crate) fn put_route(headers: &mut HeaderMap, route: Vec<(HeaderName, HeaderValue)>) {
    let is_ours = |name: &HeaderName| {
        let rest = name.as_str().strip_prefix(ROUTE.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    if headers.keys().any(is_ours) {
        let forged: Vec<_> = headers.keys().filter(|name| is_ours(name)).cloned().collect();
        for name in forged {
            headers.remove(name);
        }
    }
    headers.extend(route);
}

/// Makes the head of a request the guest's; returns the id that the client sent along.
pub(crate) fn prepare(headers: &mut HeaderMap, id: &RequestId) -> Option<HeaderValue> {
    strip_hop_by_hop(headers);
    request_id::stamp(headers, id)
}

/// Removes what concerns only the connection that the request came on, as its `Connection` says (RFC 9110 §7.6.1); what always
/// does, no guest is told (`guest/outbound/mod.rs`). And `Proxy`, which CGI in a guest would find as `HTTP_PROXY` (CVE-2016-5385).
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    headers.remove("proxy");
    hop_by_hop::strip_named(headers);
}

/// A client of HTTP/1.0 need not say whom it asks, and any may leave `Host` empty (RFC 9112 §3.2); a guest is always told, so it is
/// told our address.
fn need_authority<B>(request: &mut Request<B>, local: Option<SocketAddr>) {
    if request.uri().authority().is_none()
        && request.headers().get(header::HOST).is_none_or(HeaderValue::is_empty)
        && let Some(host) = local.and_then(|local| HeaderValue::from_str(&local.to_string()).ok())
    {
        request.headers_mut().insert(header::HOST, host);
    }
}

/// The log line of a failure, whether or not there is an access log. A client that left or erred is no news.
fn tell_operator(revision: &Revision, id: RequestId, failure: &Failure) {
    let level = match failure.kind() {
        FailureKind::ClientGone
        | FailureKind::ClientTooSlow
        | FailureKind::BodyTooLarge
        | FailureKind::BadRequest
        | FailureKind::NotFound => log::Level::Debug,
        _ => log::Level::Warn,
    };
    log::log!(level, "handler `{}` r{}, request {id}: {failure}", revision.handler, revision.number);
}

/// The answer to one request: the guest's if it gives one, else the failure's. Whoever comes first takes the responder.
struct Reply {
    responder: Mutex<Option<Responder>>,
    id: RequestId,
    visit: Option<Arc<Visit>>,
    /// The guest has answered 500 to 599 by itself. Relaxed: read on the worker that runs the guest, which is who answers.
    is_5xx: AtomicBool,
}

impl Reply {
    fn new(responder: Responder, id: RequestId, visit: Option<Arc<Visit>>) -> Self {
        Self { responder: Mutex::new(Some(responder)), id, visit, is_5xx: AtomicBool::new(false) }
    }

    fn send_guests(&self, response: Response<GuestBody>) {
        self.is_5xx.store(response.status().is_server_error(), Ordering::Relaxed);
        if let Some(responder) = self.take_responder() {
            self.send(responder, response);
        }
    }

    fn send_failure(&self, failure: &Failure) {
        let Some(responder) = self.take_responder() else { return };
        if failure.kind() == FailureKind::ClientGone {
            // If it has only stopped sending before its body was whole, it is told so (RFC 9112 §8).
            let early = Failure::new(FailureKind::BadRequest, "");
            let mut response = failure_response(&early);
            response.headers_mut().insert(REQUEST_ID, self.id.header());
            let Some(visit) = self.visit.clone() else { return responder.send(response.map(Full::new)) };
            // Else there is nobody to answer: the status is for the access log.
            visit.answered(failure.status());
            return responder.send_and_tell(response.map(Full::new), move |sent| {
                if sent.is_ok() {
                    visit.answered(early.status());
                    visit.overrule(&early);
                }
                visit.sent(sent);
            });
        }
        self.send(responder, failure_response(failure).map(Full::new));
    }

    /// The failure of a request that reaches no guest.
    fn send_unserved(&self, failure: &Failure) {
        if let Some(visit) = &self.visit {
            visit.unserved(failure);
        }
        self.send_failure(failure);
    }

    fn take_responder(&self) -> Option<Responder> {
        self.responder.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Adds the request id, and has the access line say what became of it.
    fn send<B>(&self, responder: Responder, mut response: Response<B>)
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<astra_server::BoxError>,
    {
        response.headers_mut().insert(REQUEST_ID, self.id.header());
        let Some(visit) = self.visit.clone() else { return responder.send(response) };
        visit.answered(response.status());
        responder.send_and_tell(response, move |sent| visit.sent(sent));
    }
}

fn failure_response(failure: &Failure) -> Response<Bytes> {
    let mut response = text_response(failure.status(), failure.public_text());
    if let Some(after) = failure.retry_after() {
        response.headers_mut().insert(header::RETRY_AFTER, after.as_secs().into());
    }
    response
}

fn text_response(status: StatusCode, text: &'static str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from_static(text.as_bytes()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CONTENT_LENGTH, text.len().into());
    response
}

/// Where the lines go that a guest prints: into the log, with the names of handler and request.
pub(crate) struct PrintedLines {
    pub(crate) log: Option<Log>,
    pub(crate) handler: Arc<str>,
    pub(crate) id: RequestId,
}

impl GuestOutput for PrintedLines {
    fn line(&self, stream: Stream, line: &str) {
        let Some(log) = &self.log else { return };
        let stream = match stream {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        };
        let line = GuestLine { handler: &self.handler, id: self.id, stream, text: line };
        log.line(Origin::Guest, |out| log.format().guest_line(out, &line));
    }

    fn dropped(&self, lines: u64, bytes: u64) {
        let Self { handler, id, .. } = self;
        log::warn!(
            "handler `{handler}`, request {id}: lines dropped after the 1 MiB that a request may print: {lines} ({bytes} bytes)"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&'static str, &'static str)]) -> Request<()> {
        let mut request = Request::new(());
        for (name, value) in headers {
            request.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        request
    }

    #[test]
    fn what_concerns_the_connection_stays_with_it() {
        let mut request = request(&[
            ("connection", "close, x-hop"),
            ("connection", " ,X-Other,,not a name, host, content-length"),
            ("x-hop", "1"),
            ("x-hop", "2"),
            ("x-other", "1"),
            ("proxy", "http://evil"),
            ("host", "test"),
            ("content-length", "1"),
            ("trailer", "x-checksum"),
            ("x-stays", "1"),
        ]);
        strip_hop_by_hop(request.headers_mut());
        let mut names: Vec<&str> = request.headers().keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["connection", "content-length", "host", "trailer", "x-stays"]);
    }

    #[test]
    fn a_guest_is_told_our_address_when_the_client_names_none() {
        let local = Some(SocketAddr::from(([127, 0, 0, 1], 80)));
        for (headers, told) in [
            (&[][..], "127.0.0.1:80"),
            (&[("host", "")][..], "127.0.0.1:80"),
            (&[("host", "example.org")][..], "example.org"),
        ] {
            let mut request = request(headers);
            need_authority(&mut request, local);
            assert_eq!(request.headers()[header::HOST], told, "{headers:?}");
        }
    }
}
