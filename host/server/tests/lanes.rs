//! Bulkheads: requests of one lane that are slow, or too many, take neither the workers nor the turns of others.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use astra_server::{Admission, Bytes, ConnectionInfo, Exchange, Handler, Lane, blocking, give_way, sleep_until, wait};
use http::request;
use http_body_util::Full;
use support::frames::get;
use support::{Client, Gate, Running, server, signals, start_handler};

const SLOW: Lane = Lane { id: 1, in_flight: 2, kept: usize::MAX, queue: 1, queue_timeout: None };

/// `/slow…` is held at the gate and has a lane with bounds; what is elsewhere is answered at once.
struct Slow {
    lane: Lane,
    gate: Gate,
    called: std::sync::mpsc::Sender<()>,
}

impl Handler for Slow {
    fn admit(&self, request: &request::Parts, _info: &ConnectionInfo) -> Admission {
        Admission::Queue(if request.uri.path().starts_with("/slow") { self.lane } else { Lane::default() })
    }

    fn handle(&self, exchange: Exchange) {
        let path = exchange.request.uri().path().to_owned();
        if path.starts_with("/slow") {
            self.called.send(()).expect("the test listens");
            blocking(|| self.gate.wait());
        }
        exchange.responder.send(http::Response::new(Full::new(Bytes::from(path))));
    }
}

fn slow(max_workers: usize, lane: Lane) -> (Running, Gate, support::Signals<()>) {
    let (called, calls) = signals();
    let gate = Gate::default();
    let handler = Slow { lane, gate: gate.clone(), called };
    (start_handler(server().max_workers(max_workers), handler), gate, calls)
}

fn ask(server: &Running, path: &str) -> Client {
    let mut client = server.connect();
    client.ask(path);
    client
}

#[test]
fn a_slow_lane_takes_as_many_workers_as_it_may_and_the_next_is_503_at_once() {
    let (server, gate, calls) = slow(4, SLOW);
    let mut started = [ask(&server, "/slow/1"), ask(&server, "/slow/2")];
    calls.next();
    calls.next();
    let mut waits = ask(&server, "/slow/3");
    // It is queued before the next is read, since that is read later.
    assert_eq!(server.connect().get("/quick").text(), "/quick");
    let refused = server.connect().get("/slow/4");
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    for _ in 0..20 {
        assert_eq!(server.connect().get("/quick").text(), "/quick");
    }
    assert!(calls.is_empty(), "no third one has started");
    gate.open();
    for (client, path) in started.iter_mut().zip(["/slow/1", "/slow/2"]) {
        assert_eq!(client.answer().text(), path);
    }
    assert_eq!(waits.answer().text(), "/slow/3");
}

#[test]
fn a_request_waits_for_its_lane_as_long_as_the_lane_says() {
    let lane = Lane { in_flight: 1, queue: 9, queue_timeout: Some(Duration::from_millis(1)), ..SLOW };
    let (server, gate, calls) = slow(4, lane);
    let mut started = ask(&server, "/slow/1");
    calls.next();
    let late = server.connect().get("/slow/2");
    assert_eq!((late.status, late.header("retry-after")), (503, Some("1")));
    gate.open();
    assert_eq!(started.answer().text(), "/slow/1");
    assert_eq!(server.connect().get("/slow/3").text(), "/slow/3");
}

#[test]
fn a_lane_with_a_long_queue_does_not_make_others_wait_for_the_end_of_it() {
    let lane = Lane { in_flight: 1, queue: 100, ..SLOW };
    let (server, gate, calls) = slow(2, lane);
    let mut slow: Vec<Client> = (0..50).map(|_| ask(&server, "/slow")).collect();
    calls.next();
    for _ in 0..20 {
        assert_eq!(server.connect().get("/quick").text(), "/quick");
    }
    gate.open();
    for client in &mut slow {
        assert_eq!(client.answer().text(), "/slow");
    }
}

/// As many as one connection may have queued in a lane, and more.
#[test]
fn a_lane_that_is_full_holds_up_no_others_of_the_same_connection() {
    let lane = Lane { in_flight: 1, queue: usize::MAX, ..SLOW };
    let (server, gate, calls) = slow(8, lane);
    let mut client = Client::connect_http2(server.addr);
    let streams: Vec<u32> = (1..).step_by(2).take(4 * support::cores() + 10).collect();
    for &stream in &streams {
        client.send(get(stream, "/slow"));
    }
    calls.next();
    client.send(get(1001, "/quick"));
    assert_eq!(client.status_of(1001), 200);
    gate.open();
    let mut ended: Vec<u32> = streams.iter().map(|_| client.ended()).collect();
    ended.sort_unstable();
    assert_eq!(ended, streams);
}

#[test]
fn uploads_that_trickle_leave_half_of_their_lane_to_requests_that_are_whole() {
    let (server, gate, calls) = slow(64, Lane { in_flight: 4, queue: 0, ..SLOW });
    let mut uploads: Vec<Client> = (0..4).map(|_| server.connect()).collect();
    for client in &mut uploads {
        client.send("POST /slow HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\n");
    }
    calls.next();
    calls.next();
    // The others wait for the rest of their bodies, or for a place.
    let mut whole = [ask(&server, "/slow/1"), ask(&server, "/slow/2")];
    calls.next();
    calls.next();
    assert_eq!(server.connect().get("/slow/3").status, 503, "four are in flight");
    gate.open();
    for client in &mut whole {
        assert_eq!(client.answer().status, 200);
    }
    for client in &mut uploads {
        client.send("hello");
        assert_eq!(client.answer().status, 200);
    }
}

/// `/busy` computes until it is told to stop, and meanwhile waits or gives way now and then; `/light` is of the same lane; both that and what is
/// elsewhere is answered at once.
struct Busy {
    is_over: Arc<AtomicBool>,
    pause: fn(),
    called: std::sync::mpsc::Sender<()>,
}

impl Handler for Busy {
    fn admit(&self, request: &request::Parts, _info: &ConnectionInfo) -> Admission {
        Admission::Queue(Lane { id: u64::from(request.uri.path() != "/quick"), ..Lane::default() })
    }

    fn handle(&self, exchange: Exchange) {
        let path = exchange.request.uri().path().to_owned();
        if path == "/busy" {
            self.called.send(()).expect("the test listens");
            while !self.is_over.load(Ordering::SeqCst) {
                let until = Instant::now() + Duration::from_millis(5);
                while Instant::now() < until {}
                (self.pause)();
            }
        }
        exchange.responder.send(http::Response::new(Full::new(Bytes::from(path))));
    }
}

/// More than may run at once have the seats, for ever; `path` is answered nonetheless.
fn is_served_beside(pause: fn(), path: &str) {
    let (called, calls) = signals();
    let is_over = Arc::new(AtomicBool::new(false));
    let server = start_handler(server().seats(2), Busy { is_over: is_over.clone(), pause, called });
    let mut busy: Vec<Client> = (0..2).map(|_| ask(&server, "/busy")).collect();
    calls.next();
    calls.next();
    busy.extend((0..8).map(|_| ask(&server, "/busy")));
    for _ in 0..5 {
        assert_eq!(server.connect().get(path).text(), path);
    }
    is_over.store(true, Ordering::SeqCst);
    for client in &mut busy {
        assert_eq!(client.answer().text(), "/busy");
    }
}

#[test]
fn those_that_wait_and_compute_in_turn_do_not_keep_others_from_the_seats() {
    let pause = || {
        let until = Instant::now() + Duration::from_millis(1);
        let sleep = sleep_until(until).expect("a worker calls this");
        wait(sleep, None).expect("nobody ends it");
    };
    is_served_beside(pause, "/quick");
}

#[test]
fn those_that_only_compute_give_way_to_others() {
    is_served_beside(give_way, "/quick");
}

#[test]
fn nor_do_they_keep_what_is_short_in_their_own_lane_from_them() {
    is_served_beside(give_way, "/light");
}
