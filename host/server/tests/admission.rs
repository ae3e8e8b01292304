//! What becomes of a request before a worker takes it: it is queued in its lane, or answered at once, or its client goes away. Each is
//! told to the handler, once.

mod support;

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use astra_server::{Admission, Bytes, ConnectionInfo, Cut, Event, Exchange, Handler, Lane, Refused, Told, blocking};
use http::request;
use http_body_util::Full;
use support::frames::{get, post, rst_stream};
use support::{Client, Gate, Running, Signals, server, signals, start_handler, until};

const LANE: Lane = Lane { id: 1, in_flight: 1, kept: usize::MAX, queue: usize::MAX, queue_timeout: None };

/// `/health` is answered at once; `/held…` is held at the gate, one at a time; `/computes` computes until told to stop; all else is served.
struct Admits {
    gate: Gate,
    stop: Arc<AtomicBool>,
    called: Mutex<Sender<String>>,
    told: Mutex<Sender<Result<u64, Cut>>>,
    refused: Mutex<Sender<(String, u16)>>,
}

impl Handler for Admits {
    fn admit(&self, request: &request::Parts, _info: &ConnectionInfo) -> Admission {
        match request.uri.path() {
            "/health" => {
                let told = self.told.lock().expect("not poisoned").clone();
                let tell = move |became| told.send(became).expect("the test listens");
                Admission::Answer(http::Response::new(Bytes::from_static(b"healthy")), Some(Box::new(tell)))
            }
            path if path.starts_with("/held") => Admission::Queue(LANE),
            _ => Admission::Queue(Lane::default()),
        }
    }

    fn handle(&self, exchange: Exchange) {
        let path = exchange.request.uri().path().to_owned();
        self.called.lock().expect("not poisoned").send(path.clone()).expect("the test listens");
        if path.starts_with("/held") {
            blocking(|| self.gate.wait());
        }
        while path == "/computes" && !self.stop.load(SeqCst) {
            std::hint::spin_loop();
        }
        exchange.responder.send(http::Response::new(Full::new(Bytes::from(path))));
    }

    fn refused(&self, refused: Refused<'_>) -> Option<Told> {
        let told = (refused.request.uri.path().to_owned(), refused.response.status.as_u16());
        // Nobody listens any more at the end of a test.
        let _ = self.refused.lock().expect("not poisoned").send(told);
        None
    }
}

/// A server, and what its handler saw.
struct Started {
    server: Running,
    gate: Gate,
    stop: Arc<AtomicBool>,
    calls: Signals<String>,
    told: Signals<Result<u64, Cut>>,
    refused: Signals<(String, u16)>,
}

fn start(server: astra_server::Server) -> Started {
    let ((called, calls), (tell, told), (refuse, refused)) = (signals(), signals(), signals());
    let (gate, stop) = (Gate::default(), Arc::<AtomicBool>::default());
    let (called, told_to, refused_to) = (Mutex::new(called), Mutex::new(tell), Mutex::new(refuse));
    let handler = Admits { gate: gate.clone(), stop: stop.clone(), called, told: told_to, refused: refused_to };
    Started { server: start_handler(server, handler), gate, stop, calls, told, refused }
}

fn ask(server: &Running, path: &str) -> Client {
    let mut client = server.connect();
    client.ask(path);
    client
}

#[test]
fn what_is_answered_at_once_needs_no_worker_and_no_place_in_the_queue() {
    let Started { server, gate, calls, told, refused, .. } = start(server().max_workers(1).queue(1, Duration::MAX));
    let mut held = ask(&server, "/held");
    calls.next();
    // One of them is queued, the other is one too many.
    let _queued = ["/held"; 2].map(|path| ask(&server, path));
    assert_eq!(refused.next(), ("/held".to_owned(), 503));
    let mut client = server.connect();
    for _ in 0..3 {
        assert_eq!(client.get("/health").text(), "healthy");
        assert_eq!(told.next(), Ok(7));
    }
    assert_eq!(client.post("/health", b"a body").text(), "healthy");
    assert_eq!(client.get("/health").text(), "healthy", "its connection goes on");
    client.send("HEAD /health HTTP/1.1\r\nhost: test\r\n\r\n");
    assert_eq!(client.answer_without_body().header("content-length"), Some("7"));
    let mut http2 = Client::connect_http2(server.addr);
    http2.send(get(1, "/health"));
    assert_eq!(http2.status_of(1), 200);
    gate.open();
    assert_eq!(held.answer().text(), "/held");
    assert!(refused.is_empty(), "what is answered at once is not refused");
}

#[test]
fn what_is_answered_at_once_waits_for_nobody_who_computes() {
    let Started { server, stop, calls, .. } = start(server().seats(2));
    let mut computing = ["/computes"; 2].map(|path| ask(&server, path));
    calls.next();
    calls.next();
    assert_eq!(server.connect().get("/health").text(), "healthy");
    stop.store(true, SeqCst);
    for client in &mut computing {
        assert_eq!(client.answer().status, 200);
    }
}

#[test]
fn a_body_that_never_comes_does_not_hold_up_what_is_answered_at_once() {
    let Started { server, .. } = start(server());
    for head in ["content-length: 10\r\n\r\nhello", "content-length: 10\r\nexpect: 100-continue\r\n\r\n"] {
        let mut client = server.connect();
        client.send(format!("POST /health HTTP/1.1\r\nhost: test\r\n{head}"));
        assert_eq!(client.answer().text(), "healthy");
    }
}

#[test]
fn requests_whose_clients_go_away_before_they_are_started_are_told() {
    let Started { server, gate, calls, refused, .. } = start(server());
    let mut held = ask(&server, "/held");
    calls.next();
    // Queued, on HTTP/1 and on HTTP/2.
    let queued = ask(&server, "/held/queued");
    let mut http2 = Client::connect_http2(server.addr);
    http2.send(get(1, "/held/stream"));
    // Served later than these have come.
    assert_eq!(server.connect().get("/else").text(), "/else");
    http2.send(get(3, "/else"));
    assert_eq!(http2.status_of(3), 200);
    queued.reset();
    assert_eq!(refused.next(), ("/held/queued".to_owned(), 499));
    http2.send(rst_stream(1, 8));
    assert_eq!(refused.next(), ("/held/stream".to_owned(), 499));
    gate.open();
    assert_eq!(held.answer().text(), "/held");
    assert!(refused.is_empty());
}

#[test]
fn requests_that_are_not_started_before_the_server_ends_are_told_and_their_clients_not_blamed() {
    let Started { server, gate, calls, refused, .. } = start(server());
    let _held = ask(&server, "/held");
    calls.next();
    let _queued = ask(&server, "/held/queued");
    assert_eq!(server.connect().get("/else").text(), "/else");
    let stopping = server.counters();
    std::thread::scope(|scope| {
        let stop = scope.spawn(|| server.into_handle().shutdown(Duration::ZERO));
        assert_eq!(refused.next(), ("/held/queued".to_owned(), 503));
        let counts = stopping.counts().expect("it has not ended");
        assert_eq!((counts.of(Event::Stopped), counts.of(Event::ClientGone)), (1, 0));
        gate.open();
        assert_eq!(stop.join().expect("no panic"), Some(1));
    });
}

#[test]
fn an_upload_that_goes_away_before_it_is_started_is_told() {
    let Started { server, gate, calls, refused, .. } = start(server().max_workers(2));
    // It has the one place that there is for a body that has not ended.
    let mut held = server.connect();
    held.send("POST /held HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\n");
    calls.next();
    let mut http2 = Client::connect_http2(server.addr);
    http2.send([post(1, "/stream"), get(3, "/else")].concat());
    assert_eq!(http2.status_of(3), 200);
    http2.send(rst_stream(1, 8));
    assert_eq!(refused.next(), ("/stream".to_owned(), 499));
    let mut upload = server.connect();
    upload.send("POST /upload HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\n");
    assert_eq!(server.connect().get("/else").text(), "/else");
    upload.reset();
    assert_eq!(refused.next(), ("/upload".to_owned(), 499));
    gate.open();
    assert_eq!(held.answer().text(), "/held");
    assert_eq!([calls.next(), calls.next()], ["/else", "/else"]);
    assert!(calls.is_empty() && refused.is_empty());
}

#[test]
fn streams_that_are_reset_at_once_are_each_told_once() {
    let Started { server, calls, refused, .. } = start(server());
    let mut client = Client::connect_http2(server.addr);
    // In one segment, and not so many that h2 ends the connection (20).
    let reset = |stream| [get(stream, "/else"), rst_stream(stream, 8)].concat();
    let resets: Vec<u8> = (1..31).step_by(2).flat_map(reset).collect();
    client.send([resets, post(31, "/else"), rst_stream(31, 8), get(33, "/else")].concat());
    assert_eq!(client.status_of(33), 200);
    let mut seen = 0;
    until("all are accounted for", || {
        seen += usize::from(!calls.is_empty());
        seen += usize::from(!refused.is_empty());
        seen >= 17
    });
    assert!(calls.is_empty() && refused.is_empty(), "no more than there were");
}

/// Holds what it is asked at the gate, and panics when it hears of what was refused.
struct Panics {
    gate: Gate,
    called: Mutex<Sender<()>>,
}

impl Handler for Panics {
    fn admit(&self, _request: &request::Parts, _info: &ConnectionInfo) -> Admission {
        Admission::Queue(LANE)
    }

    fn handle(&self, exchange: Exchange) {
        self.called.lock().expect("not poisoned").send(()).expect("the test listens");
        blocking(|| self.gate.wait());
        exchange.responder.send(http::Response::new(Full::new(Bytes::from_static(b"served"))));
    }

    fn refused(&self, _refused: Refused<'_>) -> Option<Told> {
        panic!("this panic belongs to the test");
    }
}

#[test]
fn a_panic_about_a_request_whose_client_has_gone_costs_no_worker() {
    let (called, calls) = signals();
    let gate = Gate::default();
    let server = start_handler(server().max_workers(1), Panics { gate: gate.clone(), called: Mutex::new(called) });
    let mut held = ask(&server, "/");
    calls.next();
    drop(ask(&server, "/"));
    let mut other = ask(&server, "/");
    gate.open();
    assert_eq!(held.answer().text(), "served");
    assert_eq!(other.answer().text(), "served");
    assert!(server.into_handle().shutdown(support::PATIENCE).is_none());
}

#[test]
fn a_panic_about_what_is_refused_costs_no_answer() {
    let (called, calls) = signals();
    let gate = Gate::default();
    let handler = Panics { gate: gate.clone(), called: Mutex::new(called) };
    let server = start_handler(server().max_workers(1).queue(9, Duration::from_millis(100)), handler);
    let mut held = ask(&server, "/");
    calls.next();
    // Refused in one go.
    let mut late: Vec<Client> = (0..3).map(|_| ask(&server, "/")).collect();
    assert!(late.iter_mut().all(|client| client.answer().status == 503));
    gate.open();
    assert_eq!(held.answer().text(), "served");
    assert!(server.into_handle().shutdown(support::PATIENCE).is_none());
}
