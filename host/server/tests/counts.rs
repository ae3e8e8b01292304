//! What the server does by itself is counted and told: bounds that are hit, clients that are cut, requests that are refused.

mod support;

use std::convert::Infallible;
use std::future::pending;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use astra_server::{
    Admission, Body, Bytes, ConnectionInfo, Cut, Event, Exchange, Gone, Handler, Lane, Refused, Response, Server, Told,
    blocking, wait,
};
use http::StatusCode;
use http::request::Parts;
use http_body::Frame;
use http_body_util::Full;
use support::frames::{get, ping, rst_stream};
use support::{Client, Gate, PATIENCE, Running, Signals, server, signals, start, start_handler, until};

const SOON: Duration = Duration::from_millis(50);

fn hello(server: Server) -> Running {
    start(server, |mut req: astra_server::Request, _info| {
        drop(std::io::copy(&mut req.body_mut().reader(), &mut std::io::sink()));
        Response::new(Body::new("hello"))
    })
}

/// Waits until a server has counted so many, and nothing else.
fn counts(server: &Running, event: Event, number: u64) {
    let counters = server.counters();
    let counts = || counters.counts().expect("it runs");
    until(event.name(), || counts().of(event) >= number);
    for other in Event::ALL {
        assert_eq!(counts().of(other), if other == event { number } else { 0 }, "{other:?}");
    }
}

/// Clients that each say one thing, and are cut for it or refused.
fn say(server: &Running, what: impl AsRef<[u8]>) {
    let mut client = server.connect();
    client.send(what);
    client.until_closed();
}

#[test]
fn heads_that_do_not_arrive_are_counted() {
    let server = hello(server().header_read_timeout(SOON));
    say(&server, "GET / HT");
    say(&server, "GET / HTTP/1.1\r\nhost: te");
    counts(&server, Event::HeadTimeout, 2);
}

#[test]
fn bodies_that_do_not_arrive_are_counted() {
    let server = hello(server().body_read_timeout(SOON));
    say(&server, "POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\nab");
    counts(&server, Event::BodyTimeout, 1);
}

#[test]
fn what_is_no_request_is_counted_and_what_is_refused_too() {
    let server = hello(server());
    say(&server, "GET / HTTP/1.1\r\nhost : test\r\n\r\n");
    counts(&server, Event::Malformed, 1);
    let server = hello(support::server());
    say(&server, "TRACE / HTTP/1.1\r\nhost: test\r\n\r\n");
    counts(&server, Event::Refused, 1);
}

#[test]
fn proxies_that_do_not_say_who_their_client_is_are_counted() {
    let server = hello(server().proxy_protocol(|peer| peer.is_loopback()).idle_timeout(SOON));
    say(&server, "GET / HTTP/1.1\r\nhost: test\r\n\r\n");
    counts(&server, Event::ProxyRefused, 1);
}

#[test]
fn floods_are_counted() {
    let server = hello(server().http2_max_control_frames(10));
    let mut client = Client::connect_http2(server.addr);
    client.send(ping(&[0; 8]).repeat(100));
    client.until_closed();
    counts(&server, Event::Flood, 1);
    // This one h2 finds, before there is a request.
    let mut client = Client::connect_http2(server.addr);
    let reset = |stream| [get(stream, "/"), rst_stream(stream, 8)].concat();
    client.send((1..101).step_by(2).flat_map(reset).collect::<Vec<_>>());
    client.until_closed();
    counts(&server, Event::Flood, 2);
}

#[test]
fn connections_are_counted_and_that_there_are_as_many_as_may_be() {
    let server = hello(server().max_connections(2));
    let (mut first, mut second) = (server.connect(), server.connect());
    assert_eq!((first.get("/").status, second.get("/").status), (200, 200));
    let counters = server.counters();
    let _waits = server.connect();
    until("the limit is told", || counters.counts().is_some_and(|counts| counts.of(Event::MaxConnections) > 0));
    let counts = counters.counts().expect("it runs");
    assert_eq!((counts.connections, counts.accepted, counts.open, counts.queued), (2, 2, 0, 0));
    drop(server);
    assert!(counters.counts().is_none(), "they keep no server alive");
}

/// Has one lane, where all requests wait at a gate, and tells what is refused and what becomes of answers.
struct Guarded {
    lane: Lane,
    gate: Gate,
    called: std::sync::mpsc::Sender<Duration>,
    refused: std::sync::mpsc::Sender<(Event, Duration, StatusCode)>,
    told: std::sync::mpsc::Sender<Result<u64, Cut>>,
}

impl Handler for Guarded {
    fn admit(&self, _request: &Parts, _info: &ConnectionInfo) -> Admission {
        Admission::Queue(self.lane)
    }

    fn handle(&self, exchange: Exchange) {
        self.called.send(exchange.queued).expect("the test listens");
        blocking(|| self.gate.wait());
        exchange.responder.send(http::Response::new(Full::new(Bytes::new())));
    }

    fn refused(&self, refused: Refused<'_>) -> Option<Told> {
        let what = (refused.why, refused.queued, refused.response.status);
        self.refused.send(what).expect("the test listens");
        let told = self.told.clone();
        Some(Box::new(move |became| told.send(became).expect("the test listens")))
    }
}

type Refusals = (Signals<(Event, Duration, StatusCode)>, Signals<Result<u64, Cut>>);

fn guarded(server: Server, lane: Lane) -> (Running, Gate, Signals<Duration>, Refusals) {
    let ((called, calls), (refused, refusals), (told, tells)) = (signals(), signals(), signals());
    let gate = Gate::default();
    let handler = Guarded { lane, gate: gate.clone(), called, refused, told };
    (start_handler(server, handler), gate, calls, (refusals, tells))
}

const NARROW: Lane = Lane { id: 7, in_flight: 1, kept: usize::MAX, queue: 1, queue_timeout: None };

#[test]
fn a_full_queue_is_told_from_a_wait_that_was_too_long() {
    for (lane, event) in [
        (Lane { queue: 0, ..NARROW }, Event::QueueFull),
        (Lane { queue_timeout: Some(Duration::from_millis(20)), ..NARROW }, Event::QueueTimeout),
    ] {
        let (server, gate, calls, (refusals, tells)) = guarded(server(), lane);
        let mut first = server.connect();
        first.ask("/");
        calls.next();
        let answer = server.connect().get("/");
        assert_eq!(answer.status, 503);
        let (why, queued, status) = refusals.next();
        assert_eq!((why, status.as_u16()), (event, 503));
        assert_eq!(queued > Duration::from_millis(19), event == Event::QueueTimeout, "{queued:?}");
        assert_eq!(tells.next(), Ok(answer.body.len() as u64), "what was sent is told");
        counts(&server, event, 1);
        gate.open();
        assert_eq!(first.answer().status, 200);
    }
}

#[test]
fn who_waits_is_counted() {
    let (server, gate, calls, _) = guarded(server(), NARROW);
    let mut first = server.connect();
    first.ask("/");
    calls.next();
    let mut second = server.connect();
    second.ask("/");
    let counters = server.counters();
    until("one is queued", || counters.counts().is_some_and(|counts| (counts.open, counts.queued) == (1, 1)));
    assert_eq!((counters.queued(NARROW.id), counters.queued(1)), (1, 0));
    gate.open();
    calls.next();
    assert_eq!((first.answer().status, second.answer().status), (200, 200));
    assert_eq!(counters.queued(NARROW.id), 0);
}

/// A body that never ends.
struct Always;

impl http_body::Body for Always {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; 64 << 10])))))
    }
}

/// Answers with more than sockets take, and tells what became of it and of its client.
struct Endless(std::sync::mpsc::Sender<Result<u64, Cut>>, std::sync::mpsc::Sender<Option<Gone>>);

impl Handler for Endless {
    fn handle(&self, exchange: Exchange) {
        let (told, client) = (self.0.clone(), exchange.responder.client());
        exchange.responder.send_and_tell(http::Response::new(Always), move |became| {
            told.send(became).expect("the test listens");
        });
        let _ = wait(pending::<()>(), None);
        self.1.send(client.gone()).expect("the test listens");
    }
}

/// Why a client of each version got no more.
fn why_gone(server: impl Fn() -> Server, end: impl Fn(Running, Client)) -> Vec<Gone> {
    let ask = |client: &mut Client, is_http2: bool| match is_http2 {
        true => client.send(get(1, "/")),
        false => client.ask("/"),
    };
    let one = |is_http2: bool| {
        let ((told, tells), (seen, sees)) = (signals(), signals());
        let server = start_handler(server(), Endless(told, seen));
        let mut client = match is_http2 {
            true => Client::connect_http2(server.addr),
            false => Client::connect_narrow(server.addr),
        };
        ask(&mut client, is_http2);
        client.exactly(20).expect("the start of an answer");
        end(server, client);
        let cut = tells.next().expect_err("it never ends");
        assert_eq!(sees.next(), Some(cut.why));
        cut.why
    };
    [false, true].map(one).to_vec()
}

#[test]
fn a_client_that_leaves_is_told_from_one_that_is_slow_and_from_the_end_of_the_server() {
    let left = why_gone(server, |server, client| {
        client.reset();
        // Seen before the server is dropped.
        until("it is gone", || server.counters().counts().is_some_and(|counts| counts.open == 0));
    });
    assert_eq!(left, [Gone::Left; 2]);
    let slow = why_gone(
        || server().write_timeout(SOON),
        |server, _client| {
            counts(&server, Event::WriteTimeout, 1);
            until("it is gone", || server.counters().counts().is_some_and(|counts| counts.open == 0));
        },
    );
    assert_eq!(slow, [Gone::TooSlow; 2]);
    let stopped = why_gone(server, |server, _client| {
        assert!(server.into_handle().shutdown(SOON).is_some());
    });
    assert_eq!(stopped, [Gone::Stopped; 2]);
}

static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Remembers;

impl log::Log for Remembers {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        LOG.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{} {}", record.level(), record.args()));
    }

    fn flush(&self) {}
}

#[test]
fn a_bound_that_is_hit_is_told_at_once_and_the_rest_later() {
    support::alone("a_bound_that_is_hit_is_told_at_once_and_the_rest_later", || {
        log::set_logger(&Remembers).expect("the first");
        log::set_max_level(log::LevelFilter::Warn);
        let server = hello(server().header_read_timeout(SOON));
        for _ in 0..3 {
            say(&server, "GET / HT");
        }
        server.into_handle().shutdown(PATIENCE);
        let log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
        let text = "clients are cut, since the heads of their requests do not arrive in time: ";
        assert!(log[0].starts_with(&format!("WARN {text}first 127.0.0.1:")), "{log:?}");
        assert_eq!(log[1..], [format!("WARN {text}2 more since this was said")]);
    });
}
