//! One HTTP exchange: hyper's service, which only queues the request; the slot through which the answer comes back; and what a
//! [`Handler`] gets to see.
//!
//! The service future is polled by whoever polls the connection; the handler runs on a worker. They share the [`Slot`]: the
//! handler fills it, hyper's future waits on it. When hyper drops the future or the answer's body before its end, the client
//! is gone, and whatever the handler waits for is interrupted.

use std::any::Any;
use std::fmt::Display;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode, Version, request};
use http_body::Body as _;
use hyper::body::Incoming;

use crate::body::{Body, BoxError};
use crate::counts::Event;
use crate::http::{ConnectionInfo, Request};
use crate::lanes::Lane;
use crate::link::{Link, Open};
use crate::outgoing::Outgoing;
use crate::refusal::{client_closed_request, drop_body, overloaded, refusal, status};
use crate::slot::{Gone, Slot};
use crate::timer::{Millis, millis};
use crate::told::{Cut, Told};
use crate::upload::{Wait, discard};
use crate::workers::polled;

/// By this name, where a handler uses it, a client can ask about its request; it stays on what we answer in a handler's stead.
const REQUEST_ID: &str = "x-request-id";

/// Handles exchanges on a worker thread, one call each. [`Service`](crate::Service) is the simpler form; a handler may answer
/// before it returns, and go on working.
pub trait Handler: Send + Sync + 'static {
    /// Must answer through `exchange.responder`; the client gets 500 otherwise. A panic is contained.
    fn handle(&self, exchange: Exchange);

    /// Which bounds the request shares with others, or its answer. Called before it is queued, while its connection is polled: it must
    /// not block.
    fn admit(&self, _request: &request::Parts, _info: &ConnectionInfo) -> Admission {
        Admission::Queue(Lane::default())
    }

    /// The server has refused a request by itself: 400 without a valid `Host`, 405 for CONNECT and TRACE, 413 by the stated length,
    /// 431 by the number of fields (HTTP/2), 503 from a full queue; or its client has gone before it was started, or the server has ended, and
    /// 499 or 503 reach nobody. To be logged, or to add to the response's head. Called while a connection is polled: it must not block. A
    /// panic is contained. What hyper refuses (malformed, or its head is too large, on HTTP/2 too) and an unfinished head (408) are not
    /// requests yet, and are only counted ([`Handle::counts`](crate::Handle::counts)).
    ///
    /// What it returns learns what became of the answer, as [`Responder::send_and_tell`] has it.
    fn refused(&self, _refused: Refused<'_>) -> Option<Told> {
        None
    }
}

/// What becomes of a request whose head has come.
pub enum Admission {
    /// It waits for a worker in this lane, and is then handled.
    Queue(Lane),
    /// It is answered at once, by whoever polls its connection: however many are queued, and when all workers are busy. Of a body what
    /// comes within 20 ms is waited for and thrown away. What became of the answer is told as by [`Responder::send_and_tell`].
    Answer(http::Response<Bytes>, Option<Told>),
}

/// A request that the server has refused by itself.
#[non_exhaustive]
pub struct Refused<'a> {
    /// Why: `QueueFull`, `QueueTimeout`, `ClientGone`, `Stopped`, or `Refused` for what the request is.
    pub why: Event,
    /// How long it has waited to be started, in milliseconds of the clock that time-outs count by.
    pub queued: Duration,
    /// Its head.
    pub request: &'a request::Parts,
    /// Who asked.
    pub info: &'a ConnectionInfo,
    /// The head of the answer.
    pub response: &'a mut http::response::Parts,
}

/// One request and the means to answer it.
pub struct Exchange {
    /// Head and body; the body is read as it arrives.
    pub request: Request,
    /// Who asks, and on which of our addresses.
    pub info: ConnectionInfo,
    /// How long the request has waited to be started since its head came: for the first of its body, for room, for its turn. In
    /// milliseconds of the clock that time-outs count by.
    pub queued: Duration,
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
    /// True once the connection or HTTP/2 stream was reset or closed, by whomever. A client that has only ended its sending side
    /// (half-close) is not gone.
    pub fn is_gone(&self) -> bool {
        self.0.is_gone()
    }

    /// Why that is so.
    pub fn gone(&self) -> Option<Gone> {
        self.0.gone.get()
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

    /// As [`send`](Self::send), and `told` learns what became of the answer: `Ok` once all of the body, so many bytes, has gone
    /// out; `Err` if it was cut, by its own error or because the client gets no more, after about so many bytes (in what hyper had
    /// buffered on HTTP/1, framing counts as body).
    ///
    /// Gone out means on HTTP/1 that the system has taken it, on HTTP/2 that the client's windows have let it pass. `told` is called
    /// while a connection is polled: it must not block. It is dropped uncalled if the server ends before.
    pub fn send_and_tell<B>(mut self, response: http::Response<B>, told: impl FnOnce(Result<u64, Cut>) + Send + 'static)
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.answer(response.map(Outgoing::wrap), Some(Box::new(told)));
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
        self.answer(response, None);
    }

    fn answer(&mut self, mut response: http::Response<Outgoing>, told: Option<Told>) {
        let Some(open) = self.open.take() else { return };
        // What is wrong with a body is ours to report, whatever the handler made of the error it got; only its name for the request stays.
        let refused = if self.slot.too_large.load(Ordering::SeqCst) {
            Some(StatusCode::PAYLOAD_TOO_LARGE)
        } else if self.slot.too_slow.load(Ordering::SeqCst) {
            Some(StatusCode::REQUEST_TIMEOUT)
        } else if self.slot.malformed.load(Ordering::SeqCst) {
            Some(StatusCode::BAD_REQUEST)
        } else {
            None
        };
        if let Some(code) = refused {
            let id = response.headers_mut().remove(REQUEST_ID);
            response = refusal(code);
            response.headers_mut().extend(id.map(|id| (HeaderName::from_static(REQUEST_ID), id)));
        }
        let has_no_content =
            matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED);
        let bodiless = self.slot.head || has_no_content;
        if bodiless {
            drop_body(&mut response);
        }
        let length = response.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        response.body_mut().belong((!bodiless).then(|| self.slot.clone()), open, length, told);
        self.slot.took();
        self.slot.sent.store(!bodiless, Ordering::SeqCst);
        self.slot.fill(response);
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if self.open.is_some() {
            self.answer(status(StatusCode::INTERNAL_SERVER_ERROR), None);
        }
    }
}

/// A request on its way to a worker.
pub(crate) struct Queued {
    /// Until it is handled, answered or refused.
    asked: Option<(Request, Open)>,
    slot: Arc<Slot>,
    lane: Lane,
    /// When its head came.
    since: Millis,
    /// Of one that is answered as soon as its body may be given up, and not queued.
    answer: Option<(http::Response<Bytes>, Option<Told>)>,
    /// After that it is refused, if it has not been started.
    until: Millis,
    /// Of one with a body, until it may be queued.
    wait: Option<Wait>,
    /// Taken once it may be queued.
    place: Option<Place>,
}

/// A place among the requests that one connection may have queued in a lane.
struct Place {
    link: Arc<Link>,
    lane: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.link.places.leave(self.lane);
    }
}

impl Queued {
    pub(crate) fn slot(&self) -> &Arc<Slot> {
        &self.slot
    }

    pub(crate) fn lane(&self) -> Lane {
        self.lane
    }

    /// Nobody waits for it, or it has waited for too long.
    pub(crate) fn is_over(&self) -> bool {
        self.slot.is_gone() || self.slot.link.workers.reactor.timers.recent() > self.until
    }

    /// Ready: its handler may start, or it must be refused.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StatusCode>> {
        let (Some(wait), Some((request, _))) = (&mut self.wait, &mut self.asked) else { return Poll::Ready(Ok(())) };
        let may = ready!(request.body_mut().poll_start(wait, cx));
        self.wait = None;
        Poll::Ready(may)
    }

    /// Gives the answer that it is there for.
    fn answer(mut self) {
        if let (Some((_, open)), Some((response, told))) = (self.asked.take(), self.answer.take()) {
            Responder { slot: self.slot.clone(), open: Some(open) }.answer(response.map(Outgoing::full), told);
        }
    }

    /// Answers in its handler's stead: 503 if it waited too long, or there was no room to wait.
    pub(crate) fn refuse(mut self, code: StatusCode) {
        let Some((request, open)) = self.asked.take() else { return };
        let is_overload = code == StatusCode::SERVICE_UNAVAILABLE;
        let response = if is_overload { overloaded() } else { refusal(code) };
        let link = &self.slot.link;
        let why = match is_overload {
            true if link.workers.reactor.timers.recent() >= self.until => Event::QueueTimeout,
            true => Event::QueueFull,
            false => Event::Refused,
        };
        let (response, told) = link.refuse(request, response, why, link.queued_since(self.since));
        Responder { slot: self.slot.clone(), open: Some(open) }.answer(response, told);
        // There is no handler whose end would see to it.
        self.slot.watch_stall();
    }

    /// Runs the handler on this thread. It may panic.
    pub(crate) fn run(mut self: Box<Self>) {
        self.place = None;
        let (slot, link) = (self.slot.clone(), self.slot.link.clone());
        if slot.is_gone() {
            return;
        }
        let Some((request, open)) = self.asked.take() else { return };
        let queued = link.queued_since(self.since);
        drop(self);
        let info = link.info().clone();
        let exchange = Exchange { request, info, queued, responder: Responder { slot, open: Some(open) } };
        link.handler.handle(exchange);
    }
}

impl Drop for Queued {
    /// Nobody has answered it: its client has gone, or the server has ended. Who would have told what became of an answer knows by itself.
    fn drop(&mut self) {
        if self.answer.is_none()
            && let Some((request, _open)) = self.asked.take()
        {
            let link = &self.slot.link;
            let (why, code) = match self.slot.why_gone() {
                Gone::Stopped => (Event::Stopped, StatusCode::SERVICE_UNAVAILABLE),
                Gone::Left | Gone::TooSlow => (Event::ClientGone, client_closed_request()),
            };
            // What it returns tells nobody of an answer, since there is none.
            let _ = link.refuse(request, status(code), why, link.queued_since(self.since));
        }
    }
}

/// What `f` returns; none if it panics, which is logged with who has.
pub(crate) fn contained<R>(who: impl Display, f: impl FnOnce() -> R) -> Option<R> {
    let returned = catch_unwind(AssertUnwindSafe(f));
    returned.inspect_err(|panic| log::error!("{who} panicked: {}", panic_text(&**panic))).ok()
}

/// What a panic said.
fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no message)")
}

/// hyper's service for one connection.
pub(crate) struct ExchangeService(pub(crate) Arc<Link>);

impl hyper::service::Service<http::Request<Incoming>> for ExchangeService {
    type Response = http::Response<Outgoing>;
    type Error = std::convert::Infallible;
    type Future = ReplyFuture;

    fn call(&self, mut request: http::Request<Incoming>) -> ReplyFuture {
        let link = self.0.clone();
        if link.doubt.refuses_next() {
            return ReplyFuture { state: State::Done, link, turn: None };
        }
        let open = link.open_exchange(request.version());
        if request.version() == Version::HTTP_2 {
            join_cookies(request.headers_mut());
        } else if request.body().size_hint().exact().is_none() {
            link.doubt.begin(link.exchanges());
        }
        let slot = Slot::new(request.method() == Method::HEAD, link.clone());
        let state = match link.refusal(&request) {
            Some(response) => {
                let (head, incoming) = request.into_parts();
                discard(incoming, &link);
                let head = http::Request::from_parts(head, ());
                let (response, told) = link.refuse(head, response, Event::Refused, Duration::ZERO);
                Responder { slot: slot.clone(), open: Some(open) }.answer(response, told);
                State::Refused(slot)
            }
            None => {
                take_host_of_target(&mut request);
                let (head, incoming) = request.into_parts();
                let since = link.workers.reactor.timers.recent();
                let (lane, answer) = match link.handler.admit(&head, link.info()) {
                    Admission::Queue(lane) => (lane, None),
                    Admission::Answer(response, told) => (Lane::default(), Some((response, told))),
                };
                let timeout = lane.queue_timeout.unwrap_or(link.workers.options.queue_timeout);
                let until = since.saturating_add(millis(timeout));
                let has_body = !incoming.is_end_stream();
                let expects_continue = has_body && expects_continue(&head);
                let body =
                    if has_body { Body::incoming(incoming, expects_continue, slot.clone()) } else { Body::empty() };
                let place_in = answer.is_none().then_some(lane);
                let wait = has_body.then(|| Wait::new(link.clone(), place_in, since, until));
                let asked = Some((Request::from_parts(head, body), open));
                State::New(Box::new(Queued { asked, slot, lane, since, answer, until, wait, place: None }))
            }
        };
        ReplyFuture { state, link, turn: None }
    }
}

/// The authority of a target in absolute-form replaces `Host` (RFC 9112 section 3.2.2).
fn take_host_of_target(request: &mut http::Request<Incoming>) {
    if request.version() < Version::HTTP_2
        && let Some(authority) = request.uri().authority()
        && let Ok(host) = HeaderValue::try_from(authority.as_str())
    {
        request.headers_mut().insert(HOST, host);
    }
}

/// As hyper reads it: of several expectations the last, and none of HTTP/1.0.
fn expects_continue(request: &request::Parts) -> bool {
    let expectation = request.headers.get_all(EXPECT).iter().next_back();
    expectation.is_some_and(|expectation| expectation.as_bytes().eq_ignore_ascii_case(b"100-continue"))
        && request.version > Version::HTTP_10
}

/// A client may split its cookies over several fields on HTTP/2; a handler gets one (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    // The first test, which is cheap, says whether any field stands there twice.
    if headers.len() != headers.keys_len() && headers.get_all(COOKIE).iter().nth(1).is_some() {
        let cookies: Vec<_> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
        // What was valid in pieces is valid.
        if let Ok(cookie) = HeaderValue::from_bytes(&cookies.join(&b"; "[..])) {
            headers.insert(COOKIE, cookie);
        }
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
    /// Answered already.
    Refused(Arc<Slot>),
    /// Not queued yet: its body is on its way, or the connection has enough requests queued.
    New(Box<Queued>),
    Waiting(Arc<Slot>),
    /// There is nothing more to come; the connection ends.
    Done,
}

impl Future for ReplyFuture {
    type Output = Result<http::Response<Outgoing>, std::convert::Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_answer(cx).map(|mut response| {
            let close = || HeaderValue::from_static("close");
            if self.link.says_close() {
                response.headers_mut().insert(CONNECTION, close());
            }
            if self.link.is_http10.load(Ordering::Relaxed) && response.headers().get(CONNECTION) == Some(&close()) {
                // Or hyper would add `keep-alive` to it, if the client has asked for that.
                *response.version_mut() = Version::HTTP_10;
            }
            Ok(response)
        })
    }
}

impl ReplyFuture {
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<http::Response<Outgoing>> {
        match std::mem::replace(&mut self.state, State::Done) {
            State::New(mut queued) => {
                let slot = queued.slot.clone();
                match queued.poll_body(cx) {
                    Poll::Ready(_) if queued.answer.is_some() => {
                        queued.answer();
                        self.poll_own_answer(&slot, cx)
                    }
                    Poll::Ready(Ok(())) => self.poll_queue(queued, cx),
                    Poll::Ready(Err(code)) => {
                        self.moves(&slot);
                        queued.refuse(code);
                        self.poll_own_answer(&slot, cx)
                    }
                    Poll::Pending => {
                        self.state = State::New(queued);
                        Poll::Pending
                    }
                }
            }
            State::Waiting(slot) => {
                let reply = slot.poll_reply(cx);
                if reply.is_pending() {
                    self.state = State::Waiting(slot);
                }
                reply
            }
            State::Refused(slot) => self.poll_own_answer(&slot, cx),
            State::Done => Poll::Pending,
        }
    }

    /// Queues what may be started, if it gets a place.
    fn poll_queue(&mut self, mut queued: Box<Queued>, cx: &mut Context<'_>) -> Poll<http::Response<Outgoing>> {
        let (slot, lane) = (queued.slot.clone(), queued.lane.id);
        if !self.link.places.enter(lane, &mut self.turn, cx.waker()) {
            self.state = State::New(queued);
            return Poll::Pending;
        }
        queued.place = Some(Place { link: self.link.clone(), lane });
        // Before the push: it may be started at once, on another thread.
        let _ = slot.poll_reply(cx);
        self.moves(&slot);
        if let Err(queued) = self.link.workers.push_request(queued) {
            queued.refuse(StatusCode::SERVICE_UNAVAILABLE);
            return slot.poll_reply(cx);
        }
        self.state = State::Waiting(slot);
        Poll::Pending
    }

    /// What is polled now moves the exchange: always the same.
    fn moves(&self, slot: &Slot) {
        let _ = slot.own.set([polled(), self.link.connection_of_stream()]);
    }

    /// Of what was answered without a handler, whose end would see to it that the client takes the answer.
    fn poll_own_answer(&self, slot: &Arc<Slot>, cx: &mut Context<'_>) -> Poll<http::Response<Outgoing>> {
        self.moves(slot);
        slot.watch_stall();
        slot.poll_reply(cx)
    }
}

impl Drop for ReplyFuture {
    fn drop(&mut self) {
        if let Some(turn) = self.turn {
            self.link.places.give_up_turn(turn);
        }
        if let State::Waiting(slot) | State::Refused(slot) = &self.state {
            slot.abandon_reply();
        }
    }
}
