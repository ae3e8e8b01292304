//! One HTTP exchange: hyper's service, which only queues the request; the slot through which the answer comes back; and what a
//! [`Handler`] gets to see.
//!
//! The service future is polled by whoever polls the connection; the handler runs on a worker. They share the [`Slot`]: the
//! handler fills it, hyper's future waits on it. When hyper drops the future or the answer's body before its end, the client
//! is gone, and whatever the handler waits for is interrupted.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, RETRY_AFTER};
use http::uri::Authority;
use http::{Method, StatusCode, Version};
use http_body::Body as _;
use hyper::body::Incoming;

use crate::body::{Body, BoxError};
use crate::http::{ConnectionInfo, Request};
use crate::link::{Link, Open};
use crate::outgoing::Outgoing;
use crate::parker::Parker;
use crate::sync::lock;
use crate::timer::{Millis, TimerKey, millis};
use crate::workers::{Task, polled};

/// By this name, where a handler uses it, a client can ask about its request; it stays on what we answer in a handler's stead.
const REQUEST_ID: &str = "x-request-id";

/// Handles exchanges on a worker thread, one call each. [`Service`](crate::Service) is the simpler form; a handler may answer
/// before it returns, and go on working.
pub trait Handler: Send + Sync + 'static {
    /// Must answer through `exchange.responder`; the client gets 500 otherwise. A panic is contained.
    fn handle(&self, exchange: Exchange);

    /// The server has refused a request by itself: 400 without a valid `Host`, 405 for CONNECT and TRACE, 413 by the stated length,
    /// 503 from a full queue. To be logged, or to add to the response's head. Called while a connection is polled: it must not
    /// block. What hyper refuses (malformed, or its head is too large) and an unfinished head (408) are not requests yet, and go to
    /// the log only.
    fn refused(&self, _request: &http::request::Parts, _info: &ConnectionInfo, _response: &mut http::response::Parts) {}
}

/// One request and the means to answer it.
pub struct Exchange {
    /// Head and body; the body is read as it arrives.
    pub request: Request,
    /// Who asks, and on which of our addresses.
    pub info: ConnectionInfo,
    /// Where the answer goes.
    pub responder: Responder,
}

/// Takes the answer. Dropped unused, it answers 500.
pub struct Responder {
    slot: Arc<Slot>,
    open: Option<Open>,
}

/// Tells whether the client still waits for the answer.
#[derive(Clone)]
pub struct Client(Arc<Slot>);

impl Client {
    /// True once the connection or HTTP/2 stream was reset or closed. A client that has only ended its sending side (half-close)
    /// is not gone.
    pub fn is_gone(&self) -> bool {
        self.0.is_gone()
    }
}

impl Responder {
    /// Answers; the body is pulled from here on, by whoever polls the connection, while the handler goes on. If the body ends with
    /// an error the connection is cut (HTTP/1.1 without the last chunk, HTTP/2 RST_STREAM), so that nobody takes it for whole.
    pub fn send<B>(self, response: http::Response<B>)
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.fill(response.map(Outgoing::wrap));
    }

    /// Whether the client is still there, for as long as the handler likes to know.
    pub fn client(&self) -> Client {
        Client(self.slot.clone())
    }

    /// Whether the request's method is HEAD: nobody will read a body.
    pub(crate) fn is_head(&self) -> bool {
        self.slot.head
    }

    pub(crate) fn fill(mut self, response: http::Response<Outgoing>) {
        self.answer(response);
    }

    fn answer(&mut self, mut response: http::Response<Outgoing>) {
        let Some(open) = self.open.take() else { return };
        // The limits are ours to report, whatever the handler made of the error it got; only its name for the request stays.
        let over_limit = match (&self.slot.too_large, &self.slot.too_slow) {
            (large, _) if large.load(Ordering::SeqCst) => Some(StatusCode::PAYLOAD_TOO_LARGE),
            (_, slow) if slow.load(Ordering::SeqCst) => Some(StatusCode::REQUEST_TIMEOUT),
            _ => None,
        };
        if let Some(code) = over_limit {
            let id = response.headers_mut().remove(REQUEST_ID);
            response = refusal(code);
            response.headers_mut().extend(id.map(|id| (HeaderName::from_static(REQUEST_ID), id)));
        }
        let bodiless = self.slot.head || matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if bodiless {
            drop_body(&mut response);
        }
        let length = response.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        response.body_mut().belong((!bodiless).then(|| self.slot.clone()), open, length);
        self.slot.took();
        self.slot.sent.store(!bodiless, Ordering::SeqCst);
        self.slot.fill(response);
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if self.open.is_some() {
            self.answer(status(StatusCode::INTERNAL_SERVER_ERROR));
        }
    }
}

/// What the two sides of an exchange share.
pub(crate) struct Slot {
    link: Arc<Link>,
    reply: Mutex<Reply>,
    /// The tasks that move this exchange: its connection or HTTP/2 stream, and that stream's connection.
    own: OnceLock<[Option<Arc<dyn Task>>; 2]>,
    /// Which of them were notified by the handler's own thread and not yet polled; bit by index.
    noted: AtomicU8,
    /// The method is HEAD: that hyper drops the body does not mean that the client is gone.
    head: bool,
    gone: AtomicBool,
    waited: AtomicBool,
    /// The handler is in a wait of a kind that we do not see: what it notes must not wait for its end.
    pub(crate) blocks: AtomicBool,
    pub(crate) too_large: AtomicBool,
    pub(crate) too_slow: AtomicBool,
    /// The answer is given, and its body is not at its end.
    pub(crate) sent: AtomicBool,
    /// hyper has asked for more of the body than there is.
    pub(crate) hungry: AtomicBool,
    /// When hyper last took something of the body.
    pub(crate) taken: AtomicU64,
    /// Looks whether it still does.
    stall: Mutex<Option<TimerKey>>,
    /// The worker that runs the handler, to be woken when the client goes.
    waiter: Mutex<Option<Arc<Parker>>>,
}

#[derive(Default)]
struct Reply {
    response: Option<http::Response<Outgoing>>,
    waker: Option<Waker>,
}

impl Slot {
    fn new(head: bool, link: Arc<Link>) -> Arc<Self> {
        Arc::new(Self {
            link,
            head,
            reply: Mutex::default(),
            own: OnceLock::new(),
            noted: AtomicU8::new(0),
            gone: AtomicBool::new(false),
            waited: AtomicBool::new(false),
            blocks: AtomicBool::new(false),
            sent: AtomicBool::new(false),
            hungry: AtomicBool::new(false),
            taken: AtomicU64::new(0),
            stall: Mutex::new(None),
            too_large: AtomicBool::new(false),
            too_slow: AtomicBool::new(false),
            waiter: Mutex::new(None),
        })
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }

    /// The client will not read (the rest of) the answer.
    pub(crate) fn mark_gone(&self) {
        self.gone.store(true, Ordering::SeqCst);
        if let Some(waiter) = &*lock(&self.waiter) {
            waiter.unpark();
        }
    }

    /// hyper has taken something of the answer's body.
    pub(crate) fn took(&self) {
        self.taken.store(self.link.workers.reactor.timers.now(), Ordering::SeqCst);
    }

    /// hyper has dropped the answer's body.
    pub(crate) fn ended(&self) {
        self.sent.store(false, Ordering::SeqCst);
        if let Some(timer) = lock(&self.stall).take() {
            self.link.workers.remove_timer(timer);
        }
    }

    /// While the answer is under way: sees to it that a client that takes nothing of it is cut. On HTTP/2 the socket does not
    /// tell, since a client can withhold the window of one stream; so it is called whenever a handler waits, and when it ends.
    pub(crate) fn watch_stall(self: &Arc<Self>) {
        let mut stall = lock(&self.stall);
        if self.sent.load(Ordering::SeqCst) && stall.is_none() {
            *stall = Some(self.link.workers.add_timer_at(self.stalled_at(), Waker::from(self.clone())));
        }
    }

    /// When the client will have taken nothing for too long.
    fn stalled_at(&self) -> Millis {
        self.taken.load(Ordering::SeqCst).saturating_add(millis(self.link.limits.write_timeout))
    }

    /// A worker starts the handler.
    pub(crate) fn start(&self, waiter: Arc<Parker>) {
        *lock(&self.waiter) = Some(waiter);
    }

    /// Whether the handler has given up its seat before; says so from now on.
    pub(crate) fn waits(&self) -> bool {
        self.waited.swap(true, Ordering::Relaxed)
    }

    pub(crate) fn has_waited(&self) -> bool {
        self.waited.load(Ordering::Relaxed)
    }

    /// If `task` moves this exchange: notes that it was notified. The thread that runs the handler polls it soon.
    pub(crate) fn note(&self, task: &Arc<dyn Task>) -> bool {
        if self.blocks.load(Ordering::Relaxed) {
            return false;
        }
        let own = self.own.get().map_or(&[] as &[_], |own| own.as_slice());
        let index = own.iter().position(|own| own.as_ref().is_some_and(|own| Arc::ptr_eq(own, task)));
        if let Some(index) = index {
            self.noted.fetch_or(1 << index, Ordering::SeqCst);
        }
        index.is_some()
    }

    /// Takes out the tasks that were noted.
    pub(crate) fn noted(&self) -> impl Iterator<Item = Arc<dyn Task>> + use<> {
        let bits = if self.noted.load(Ordering::SeqCst) == 0 { 0 } else { self.noted.swap(0, Ordering::SeqCst) };
        let task = |index: usize| self.own.get().filter(|_| bits & (1 << index) != 0)?[index].clone();
        [task(0), task(1)].into_iter().flatten()
    }

    fn fill(&self, response: http::Response<Outgoing>) {
        let waker = {
            let mut reply = lock(&self.reply);
            // A response that nobody will take must not stay: its body holds this slot.
            if !self.is_gone() {
                reply.response = Some(response);
            }
            reply.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The timer of a stall.
impl Wake for Slot {
    fn wake(self: Arc<Self>) {
        *lock(&self.stall) = None;
        let now = self.link.workers.reactor.timers.now();
        if self.hungry.load(Ordering::SeqCst) {
            self.taken.store(now, Ordering::SeqCst);
        }
        if now < self.stalled_at() || !self.sent.load(Ordering::SeqCst) {
            return self.watch_stall();
        }
        log::debug!("a client took nothing of its answer for too long");
        self.mark_gone();
        if let Some(Some(task)) = self.own.get().map(|own| own[0].clone()) {
            task.cut();
        }
    }
}

/// A request on its way to a worker.
pub(crate) struct Queued {
    request: http::Request<Incoming>,
    slot: Arc<Slot>,
    open: Open,
    since: Instant,
    /// Taken once it may be queued.
    place: Option<Place>,
}

/// A place among the requests that one connection may have queued.
struct Place(Arc<Link>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.leave_queue();
    }
}

impl Queued {
    pub(crate) fn slot(&self) -> &Arc<Slot> {
        &self.slot
    }

    pub(crate) fn is_gone_or_older_than(&self, age: Duration) -> bool {
        self.slot.is_gone() || self.since.elapsed() > age
    }

    /// Answers 503: it waited too long, or there was no room to wait.
    pub(crate) fn refuse(self) {
        let response = self.slot.link.refuse(self.request, overloaded());
        Responder { slot: self.slot, open: Some(self.open) }.fill(response);
    }

    /// Runs the handler on this thread.
    pub(crate) fn run(self) {
        let Self { request, slot, open, since: _, place } = self;
        drop(place);
        let link = slot.link.clone();
        if slot.is_gone() {
            return;
        }
        let info = link.info.clone();
        let request = request.map(|body| Body::incoming(body, slot.clone(), &link));
        let exchange = Exchange { request, info, responder: Responder { slot, open: Some(open) } };
        let handler = link.handler.clone();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| handler.handle(exchange))) {
            log::error!("a handler panicked: {}", panic_text(&*panic));
        }
    }
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no message)")
}

/// hyper's service for one connection.
pub(crate) struct ExchangeService(pub(crate) Arc<Link>);

impl hyper::service::Service<http::Request<Incoming>> for ExchangeService {
    type Response = http::Response<Outgoing>;
    type Error = std::convert::Infallible;
    type Future = ReplyFuture;

    fn call(&self, request: http::Request<Incoming>) -> ReplyFuture {
        let link = self.0.clone();
        let open = link.open_exchange();
        let state = match link.refusal(&request) {
            Some(response) => {
                let mut response = link.refuse(request, response);
                response.body_mut().belong(None, open, None);
                State::Now(Box::new(response))
            }
            None => {
                let slot = Slot::new(request.method() == Method::HEAD, link.clone());
                let since = Instant::now();
                State::New(Box::new(Queued { request, slot, open, since, place: None }))
            }
        };
        ReplyFuture { state, link, turn: None }
    }
}

/// Waits for the handler's answer.
pub(crate) struct ReplyFuture {
    state: State,
    link: Arc<Link>,
    /// Its turn to be queued, while it waits for one.
    turn: Option<u64>,
}

/// Boxed, because hyper moves the future that holds it.
enum State {
    Now(Box<http::Response<Outgoing>>),
    /// Not queued yet: the connection may have enough requests queued.
    New(Box<Queued>),
    Waiting(Arc<Slot>),
    Done,
}

impl Future for ReplyFuture {
    type Output = Result<http::Response<Outgoing>, std::convert::Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if matches!(this.state, State::New(_)) && !this.link.enter_queue(&mut this.turn, cx.waker()) {
            return Poll::Pending;
        }
        match std::mem::replace(&mut this.state, State::Done) {
            State::New(mut queued) => {
                queued.place = Some(Place(this.link.clone()));
                let slot = queued.slot.clone();
                // Before the push: it may be started at once, on another thread.
                lock(&slot.reply).waker = Some(cx.waker().clone());
                // Cannot be set already: this is the one place.
                let _ = slot.own.set([polled(), this.link.connection_of_stream()]);
                if let Err(queued) = this.link.workers.push_request(queued) {
                    queued.refuse();
                    let refused = lock(&slot.reply).response.take();
                    return refused.map_or(Poll::Pending, |response| Poll::Ready(Ok(response)));
                }
                this.state = State::Waiting(slot);
                Poll::Pending
            }
            State::Waiting(slot) => {
                let mut reply = lock(&slot.reply);
                if let Some(response) = reply.response.take() {
                    return Poll::Ready(Ok(response));
                }
                if !reply.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                    reply.waker = Some(cx.waker().clone());
                }
                drop(reply);
                this.state = State::Waiting(slot);
                Poll::Pending
            }
            State::Now(response) => Poll::Ready(Ok(*response)),
            State::Done => Poll::Pending,
        }
    }
}

impl Drop for ReplyFuture {
    fn drop(&mut self) {
        if let Some(turn) = self.turn {
            self.link.give_up_turn(turn);
        }
        if let State::Waiting(slot) = &self.state {
            slot.mark_gone();
            let unsent = lock(&slot.reply).response.take();
            drop(unsent);
        }
    }
}

impl Link {
    /// Lets the handler know of a refusal.
    fn refuse(&self, request: http::Request<Incoming>, response: http::Response<Outgoing>) -> http::Response<Outgoing> {
        let (request, _body) = request.into_parts();
        let (mut response, body) = response.into_parts();
        self.handler.refused(&request, &self.info, &mut response);
        http::Response::from_parts(response, body)
    }

    /// What HTTP asks a server to refuse and hyper lets through, and what is over our limits: answered without a handler.
    fn refusal(&self, request: &http::Request<Incoming>) -> Option<http::Response<Outgoing>> {
        if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
            let mut response = refusal(StatusCode::METHOD_NOT_ALLOWED);
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH"));
            return Some(response);
        }
        if !has_valid_target(request) {
            return Some(refusal(StatusCode::BAD_REQUEST));
        }
        if request.body().size_hint().lower() > self.limits.max_body {
            return Some(refusal(StatusCode::PAYLOAD_TOO_LARGE));
        }
        None
    }
}

/// A target of the right form, and RFC 9112 section 3.2: exactly one `Host`, and a valid one, in every HTTP/1.1 request; RFC 9113 section 8.3.1: `:authority` takes
/// its place, and a `Host` beside it must agree.
fn has_valid_target(request: &http::Request<Incoming>) -> bool {
    let (headers, uri) = (request.headers(), request.uri());
    if request.version() < Version::HTTP_2 {
        // Authority-form is for CONNECT, asterisk-form for OPTIONS (RFC 9112 sections 3.2.3 and 3.2.4).
        let is_authority_form = uri.scheme().is_none() && uri.authority().is_some();
        if is_authority_form || (uri.path() == "*" && request.method() != Method::OPTIONS) {
            return false;
        }
    }
    // User information in particular (RFC 9110 section 4.2.4, RFC 9113 section 8.3.1).
    if uri.authority().is_some_and(|authority| !is_authority(authority.as_str().as_bytes())) {
        return false;
    }
    // The first test, which is cheap, says whether any field stands there twice.
    if headers.len() != headers.keys_len() && headers.get_all(HOST).iter().nth(1).is_some() {
        return false;
    }
    let authority = uri.authority();
    match (headers.get(HOST), request.version()) {
        (None, Version::HTTP_11) => false,
        (None, Version::HTTP_2) => authority.is_some(),
        (None, _) => true,
        (Some(host), Version::HTTP_2) => {
            let agrees = |uri: &Authority| uri.as_str().as_bytes().eq_ignore_ascii_case(host.as_bytes());
            is_authority(host.as_bytes()) && authority.is_none_or(agrees)
        }
        (Some(host), _) => is_authority(host.as_bytes()),
    }
}

/// `uri-host [ ":" port ]` (RFC 9110 section 7.2), without user information. An empty value is allowed: the target may have no
/// authority (RFC 9112 section 3.2).
fn is_authority(host: &[u8]) -> bool {
    // Nearly every host is a name or an IPv4 address, with a port or without.
    let name = host.iter().position(|byte| !(byte.is_ascii_alphanumeric() || b"-._".contains(byte)));
    match name {
        None => return true,
        Some(0) if host[0] == b':' => return false,
        Some(at) if host[at] == b':' => return is_port(&host[at + 1..]),
        Some(_) => {}
    }
    let Ok(authority) = Authority::try_from(host) else { return false };
    let after_address = authority.as_str().rsplit_once(']').map_or(authority.as_str(), |(_, rest)| rest);
    let port = after_address.rsplit_once(':').map_or("", |(_, port)| port);
    !host.contains(&b'@') && !authority.host().is_empty() && is_port(port.as_bytes())
}

/// A number of 16 bits, or nothing (RFC 3986 section 3.2.3).
fn is_port(port: &[u8]) -> bool {
    let number = |number: u32, digit: &u8| digit.is_ascii_digit().then(|| number * 10 + u32::from(digit - b'0'));
    port.len() <= 5 && port.iter().try_fold(0, number).is_some_and(|number| number <= u32::from(u16::MAX))
}

/// hyper's HTTP/2 would send a body with HEAD, 204 and 304. The length it would have had may be told (RFC 9110 section 8.6), but not
/// with 204.
fn drop_body(response: &mut http::Response<Outgoing>) {
    let body = std::mem::replace(response.body_mut(), Outgoing::full(Bytes::new()));
    let headers = response.headers_mut();
    match body.size_hint().exact() {
        Some(length) if length > 0 => {
            headers.entry(CONTENT_LENGTH).or_insert(length.into());
        }
        _ => {}
    }
    if response.status() == StatusCode::NO_CONTENT {
        response.headers_mut().remove(CONTENT_LENGTH);
    }
}

/// A status with its reason as text.
pub(crate) fn status(status: StatusCode) -> http::Response<Outgoing> {
    let text = format!("{} {}\n", status.as_u16(), status.canonical_reason().unwrap_or_default());
    let mut response = http::Response::new(Outgoing::full(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// A status after which the connection closes, since the rest of the request will not be read.
fn refusal(code: StatusCode) -> http::Response<Outgoing> {
    let mut response = status(code);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

fn overloaded() -> http::Response<Outgoing> {
    let mut response = status(StatusCode::SERVICE_UNAVAILABLE);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

#[cfg(test)]
mod tests {
    use super::is_authority;

    #[test]
    fn host_is_an_authority_without_user_information() {
        for good in ["", "a", "a.example:80", "[::1]:8080", "[::1]", "127.0.0.1:1", "a:"] {
            assert!(is_authority(good.as_bytes()), "{good}");
        }
        for bad in ["a b", "u@a", "a/b", "a:b", "a:99999", "[::1", ":80", "a,b c", "a?b", "a#b"] {
            assert!(!is_authority(bad.as_bytes()), "{bad}");
        }
    }
}
